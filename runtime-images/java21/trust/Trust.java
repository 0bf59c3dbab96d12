import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;

/** Writes a file of PEM certificates as a trust store, which is all that Java reads: {@code Trust <pem> <store>}. */
public final class Trust {
    /** Protects nothing: what is in the store is public. Java asks for one. */
    private static final char[] PASSWORD = "changeit".toCharArray();

    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (FileInputStream pem = new FileInputStream(arguments[0]);
                FileOutputStream out = new FileOutputStream(arguments[1])) {
            int number = 0;
            for (Certificate certificate : CertificateFactory.getInstance("X.509").generateCertificates(pem)) {
                store.setCertificateEntry("site-" + number++, certificate);
            }
            store.store(out, PASSWORD);
        }
    }
}
