<?php

declare(strict_types=1);

// The PHP runtime: started before the function is known, so that a cold start has little left to do.
//
// Life: wait for /davit/init, become the function, serve until the agent hangs up. The handler is a function of the file that it names, or the
// callable that the file returns: `handler($event, $context)`. Started by the agent (DAVIT_RUNTIME_COMMAND).

namespace Davit;

require __DIR__ . '/client.php';
require __DIR__ . '/context.php';

const API = '/2018-06-01/runtime';

/** A failure that the runtime itself names. */
final class Fault extends \RuntimeException
{
    public function __construct(public readonly string $kind, string $message)
    {
        parent::__construct($message);
    }
}

/** Warnings of the function's code become exceptions only where PHP makes them so; here they are lines in the log. */
function become(array $function): void
{
    $region = explode(':', $function['arn'] ?? '')[3] ?? '';
    $region = $region === '' ? 'us-east-1' : $region;
    $usual = ['TZ' => ':UTC', 'AWS_REGION' => $region, 'AWS_DEFAULT_REGION' => $region, 'AWS_XRAY_CONTEXT_MISSING' => 'LOG_ERROR'];
    $fixed = [
        '_HANDLER' => $function['handler'] ?? '',
        'AWS_EXECUTION_ENV' => 'AWS_Lambda_provided.php8.4',
        'AWS_LAMBDA_FUNCTION_NAME' => $function['function_name'],
        'AWS_LAMBDA_FUNCTION_VERSION' => (string) $function['version'],
        'AWS_LAMBDA_FUNCTION_MEMORY_SIZE' => (string) $function['memory_mb'],
        'AWS_LAMBDA_INITIALIZATION_TYPE' => 'on-demand',
        'AWS_LAMBDA_LOG_GROUP_NAME' => $function['log_group'],
        'AWS_LAMBDA_LOG_STREAM_NAME' => $function['log_stream'],
        'LAMBDA_TASK_ROOT' => root(),
        'LAMBDA_RUNTIME_DIR' => '/var/runtime',
    ];
    foreach ($fixed + ($function['env'] ?? []) + array_diff_key($usual, getenv()) as $name => $value) {
        putenv("$name=$value");
        $_ENV[$name] = $_SERVER[$name] = $value;
    }
    chdir(root());
    set_include_path(root() . PATH_SEPARATOR . '/opt/php');
}

function root(): string
{
    return getenv('LAMBDA_TASK_ROOT') ?: '/var/task';
}

/** In a function of its own, so that the file's variables are nobody else's. */
function load(string $file): mixed
{
    if (is_file(root() . '/vendor/autoload.php')) {
        require_once root() . '/vendor/autoload.php';
    }
    return require $file;
}

function handler(string $name): callable
{
    $dot = strrpos($name, '.');
    if ($dot === false || $dot === 0 || $dot === strlen($name) - 1) {
        throw new Fault('Runtime.MalformedHandlerName', "Bad handler '$name': write file.function, such as app.handler");
    }
    [$file, $function] = [substr($name, 0, $dot), substr($name, $dot + 1)];
    $path = root() . "/$file.php";
    if (!is_file($path)) {
        throw new Fault('Runtime.ImportModuleError', "Unable to load '$file': there is no $file.php");
    }
    try {
        $returned = load($path);
    } catch (\ParseError $error) {
        throw new Fault('Runtime.UserCodeSyntaxError', "{$error->getMessage()} in $file.php on line {$error->getLine()}");
    }
    if (function_exists($function)) {
        return $function(...);
    }
    if (is_callable($returned)) {
        return $returned;
    }
    throw new Fault('Runtime.HandlerNotFound', "Handler '$name': $file.php has no function $function and returns none");
}

function describe(\Throwable $error): array
{
    $trace = ["{$error->getFile()}:{$error->getLine()}", ...explode("\n", $error->getTraceAsString())];
    return [
        'errorType' => $error instanceof Fault ? $error->kind : $error::class,
        'errorMessage' => mb_scrub($error->getMessage(), 'UTF-8'),
        'stackTrace' => $error instanceof Fault ? [] : $trace,
    ];
}

function report(Client $client, string $path, \Throwable $error): void
{
    $document = describe($error);
    fwrite(STDERR, "{$document['errorType']}: {$document['errorMessage']}\n" . implode("\n", array_slice($document['stackTrace'], 0, 20)) . "\n");
    $client->post($path, json_encode($document, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_SLASHES), [
        'Lambda-Runtime-Function-Error-Type' => preg_replace('/[^\w.]/', '.', $document['errorType']),
    ]);
}

/** An event, called, answered. Objects of the event are arrays, as functions in PHP expect them. */
function invoke(Client $client, callable $handler, array $function, array $headers, string $body): void
{
    $id = $headers['lambda-runtime-aws-request-id'];
    try {
        try {
            $event = json_decode($body, true, 600, JSON_THROW_ON_ERROR);
        } catch (\JsonException $error) {
            throw new Fault('Runtime.UnmarshalError', "Unable to unmarshal input: {$error->getMessage()}");
        }
        $result = $handler($event, new Context($function, $headers));
        try {
            $answer = json_encode($result, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE | JSON_PRESERVE_ZERO_FRACTION);
        } catch (\JsonException $error) {
            throw new Fault('Runtime.MarshalError', "Unable to marshal response: {$error->getMessage()}");
        }
    } catch (Gone $gone) {
        throw $gone;
    } catch (\Throwable $error) {
        report($client, API . "/invocation/$id/error", $error);
        return;
    }
    $client->post(API . "/invocation/$id/response", $answer);
}

function main(): void
{
    // What was printed without a line's end is printed now; nothing is kept back.
    while (ob_get_level() > 0) {
        ob_end_flush();
    }
    ob_implicit_flush();
    $address = getenv('AWS_LAMBDA_RUNTIME_API') ?: '127.0.0.1:9001';
    // Code that has run once is there, and compiled.
    describe(new Fault('', (string) json_encode(json_decode('{"a":[1,null,"b"]}', true))));
    try {
        $client = new Client($address);
        [$status, , $body] = $client->get('/davit/init');
        if ($status !== 200) {
            exit(1);
        }
        $function = json_decode($body, true, 600, JSON_THROW_ON_ERROR);
        become($function);
        try {
            $handler = handler($function['handler'] ?? '');
        } catch (\Throwable $error) {
            report($client, API . '/init/error', $error);
            exit(1);
        }
        while (true) {
            [$status, $headers, $body] = $client->get(API . '/invocation/next');
            if ($status !== 200 || !isset($headers['lambda-runtime-aws-request-id'])) {
                exit(1);
            }
            $trace = $headers['lambda-runtime-trace-id'] ?? '';
            putenv($trace === '' ? '_X_AMZN_TRACE_ID' : "_X_AMZN_TRACE_ID=$trace");
            invoke($client, $handler, $function, $headers, $body);
        }
    } catch (Gone) {
        exit(0);
    }
}

main();
