package seqrec.debian;

import io.grpc.ChannelCredentials;
import io.grpc.ManagedChannelBuilder;
import io.grpc.ManagedChannelProvider;
import io.grpc.TlsChannelCredentials;
import io.grpc.netty.NettyChannelBuilder;
import io.netty.handler.ssl.JdkAlpn;
import io.netty.handler.ssl.JdkSslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslProvider;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import javax.net.ssl.SSLException;

/** Makes gRPC's encrypted channels with {@link JdkAlpn}; all others are left to gRPC. */
public final class TlsChannelProvider extends ManagedChannelProvider {

    @Override
    protected NewChannelBuilderResult newChannelBuilder(String target, ChannelCredentials given) {
        if (!(given instanceof TlsChannelCredentials tls)) {
            return NewChannelBuilderResult.error("only for TLS");
        }
        SslContextBuilder builder = SslContextBuilder.forClient().sslProvider(SslProvider.JDK);
        if (tls.getRootCertificates() != null) {
            builder.trustManager(stream(tls.getRootCertificates()));
        }
        if (tls.getCertificateChain() != null) {
            builder.keyManager(stream(tls.getCertificateChain()), stream(tls.getPrivateKey()));
        }
        try {
            NettyChannelBuilder channel = NettyChannelBuilder.forTarget(target);
            channel.sslContext(JdkAlpn.http2((JdkSslContext) builder.build()));
            return NewChannelBuilderResult.channelBuilder(channel);
        } catch (SSLException e) {
            return NewChannelBuilderResult.error(e.getMessage());
        }
    }

    private static InputStream stream(byte[] pem) {
        return new ByteArrayInputStream(pem);
    }

    @Override
    protected boolean isAvailable() {
        return true;
    }

    /** One more than Netty's own provider has, which fails without ALPN. */
    @Override
    protected int priority() {
        return 6;
    }

    @Override
    protected ManagedChannelBuilder<?> builderForAddress(String name, int port) {
        return NettyChannelBuilder.forAddress(name, port);
    }

    @Override
    protected ManagedChannelBuilder<?> builderForTarget(String target) {
        return NettyChannelBuilder.forTarget(target);
    }
}
