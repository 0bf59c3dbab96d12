package davit;

import com.amazonaws.services.lambda.runtime.api.client.AWSLambda;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.reflect.Field;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;

/**
 * The Java runtime: started before the function is known, so that a cold start has little left to do. It waits for {@code /davit/init},
 * takes the function's environment, and becomes AWS's own runtime client. Started by the agent (DAVIT_RUNTIME_COMMAND).
 */
public final class Launcher {
    private static final String TASK_ROOT = "/var/task";
    private static final String EXECUTION_ENVIRONMENT = "AWS_Lambda_java21";

    public static void main(String[] arguments) throws Throwable {
        MethodHandle chdir = chdir();
        Map<String, String> environment = environment();
        Rehearsal.run();
        Description function = Description.fetch(System.getenv("AWS_LAMBDA_RUNTIME_API"));
        environment.putAll(function.environment());
        environment.put("AWS_EXECUTION_ENV", EXECUTION_ENVIRONMENT);
        // The code was mounted over the folder that this process was started in.
        try (Arena arena = Arena.ofConfined()) {
            int ignored = (int) chdir.invokeExact(path(arena));
        }
        AWSLambda.main(new String[] {function.handler()});
    }

    /** The C library's function: Java has none, and no process else could do it for this one. */
    private static MethodHandle chdir() throws Throwable {
        Linker linker = Linker.nativeLinker();
        MethodHandle chdir = linker.downcallHandle(
                linker.defaultLookup().find("chdir").orElseThrow(),
                FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.ADDRESS));
        try (Arena arena = Arena.ofConfined()) {
            int ignored = (int) chdir.invokeExact(path(arena));
        }
        return chdir;
    }

    private static MemorySegment path(Arena arena) {
        return arena.allocateUtf8String(TASK_ROOT);
    }

    /** What {@code System.getenv} reads, and what child processes get; Java offers no way to change it. */
    @SuppressWarnings("unchecked")
    private static Map<String, String> environment() throws ReflectiveOperationException {
        Field inner = Collections.unmodifiableMap(new HashMap<>()).getClass().getDeclaredField("m");
        inner.setAccessible(true);
        return (Map<String, String>) inner.get(System.getenv());
    }
}
