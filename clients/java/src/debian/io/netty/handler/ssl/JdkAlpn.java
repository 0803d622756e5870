package io.netty.handler.ssl;

/**
 * HTTP/2 over TLS with Java's own ALPN: the few lines that Debian leaves out of its Netty.
 *
 * <p>In Netty's package, because the engine that they need is for that package alone.
 */
public final class JdkAlpn {
    private JdkAlpn() {}

    /** The same context, which agrees with the server on HTTP/2. */
    public static SslContext http2(JdkSslContext plain) {
        var negotiator = new JdkBaseApplicationProtocolNegotiator(
                Java9SslEngine::new,
                JdkBaseApplicationProtocolNegotiator.FAIL_SELECTOR_FACTORY,
                JdkBaseApplicationProtocolNegotiator.FAIL_SELECTION_LISTENER_FACTORY,
                ApplicationProtocolNames.HTTP_2);
        return new JdkSslContext(
                plain.context(),
                true,
                plain.cipherSuites(),
                IdentityCipherSuiteFilter.INSTANCE,
                negotiator,
                ClientAuth.NONE,
                null,
                false);
    }
}
