package seqrec;

import io.grpc.ChannelCredentials;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;
import seqrec.Contract.Tensor;
import seqrec.inference.GRPCInferenceServiceGrpc;
import seqrec.inference.GRPCInferenceServiceGrpc.GRPCInferenceServiceBlockingStub;
import seqrec.inference.ModelInferRequest;
import seqrec.inference.ModelReadyRequest;

/**
 * A connection to a Triton server; one is enough for a process, and threads may share it.
 *
 * <p>A row is a map from the names of a model's inputs to values: a String or Number if the
 * contract's size is 1, else a List of them or a float[]. What is left out or null is unknown. No
 * rows are no request, and an empty answer. Every call may throw {@link SeqrecException}.
 */
public final class Client implements AutoCloseable {
    private static final int TRIES = 3;
    private static final Duration FIRST_PAUSE = Duration.ofMillis(50);

    private final String address;
    private final ManagedChannel channel;
    private final Duration deadline;

    private Client(String address, ManagedChannel channel, Duration deadline) {
        this.address = address;
        this.channel = channel;
        this.deadline = deadline;
    }

    /** A client of the server at {@code host:port}. */
    public static Builder builder(String address) {
        return new Builder(address);
    }

    /** The same connection with another deadline for each call, retries included. */
    public Client withDeadline(Duration deadline) {
        return new Client(address, channel, deadline);
    }

    /** Ends the connection, and calls that still wait for an answer. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    /** Whether the server serves the model. */
    public boolean ready(String model) {
        ModelReadyRequest request = ModelReadyRequest.newBuilder().setName(model).build();
        return within(model, stub -> retried(stub, () -> stub.modelReady(request).getReady()));
    }

    /** Each row's outputs as they are: lists of String, Float or Integer. */
    public List<Map<String, List<?>>> call(Contract contract, List<? extends Map<String, ?>> rows) {
        return call(contract, rows, Function.identity());
    }

    /** At most {@code k} of each row's best items, of a model that gives {@code item_ids}. */
    public List<Recommendation> recommend(
            Contract contract, List<? extends Map<String, ?>> rows, int k) {
        return recommend(contract, rows, k, new Filters());
    }

    /** The same among what the filters allow; the contract's {@code filtered} is asked. */
    public List<Recommendation> recommend(
            Contract contract, List<? extends Map<String, ?>> rows, int k, Filters filters) {
        return asked(
                contract.model(),
                () -> filters.narrowed(contract, rows),
                outputs -> Answers.recommendation(outputs, k));
    }

    /**
     * At most {@code k} of the items nearest to each list of ids, by cosine; they themselves are
     * left out. The contract's {@code similarItems} is asked.
     */
    public List<Recommendation> similar(
            Contract contract, List<List<String>> ids, int k, Filters filters) {
        return asked(
                contract.model(),
                () -> filters.similar(contract, ids),
                outputs -> Answers.recommendation(outputs, k));
    }

    /** A score for each of a row's candidates, in their order. */
    public List<float[]> score(Contract contract, List<? extends Map<String, ?>> rows) {
        return call(contract, rows, outputs -> Answers.floats(outputs, "scores"));
    }

    /** A vector for each row, of a model that gives an embedding. */
    public List<float[]> encode(Contract contract, List<? extends Map<String, ?>> rows) {
        String name = contract.outputs().stream()
                .map(Tensor::name)
                .filter(output -> output.endsWith("_embedding"))
                .findFirst()
                .orElse("embedding");
        return call(contract, rows, outputs -> Answers.floats(outputs, name));
    }

    private <T> List<T> call(
            Contract contract,
            List<? extends Map<String, ?>> rows,
            Function<Map<String, List<?>>, T> read) {
        return asked(contract.model(), () -> new Filters.Asked(contract, rows), read);
    }

    private <T> List<T> asked(
            String model, Supplier<Filters.Asked> asked, Function<Map<String, List<?>>, T> read) {
        return within(model, stub -> {
            Filters.Asked found = asked.get();
            Contract contract = found.contract();
            List<? extends Map<String, ?>> rows = found.rows();
            List<Map<String, List<Object>>> checked = Framing.check(contract, rows);
            List<T> results = new ArrayList<>(rows.size());
            for (int start = 0; start < checked.size(); start += contract.maxBatchSize()) {
                int end = Math.min(start + contract.maxBatchSize(), checked.size());
                List<Map<String, List<Object>>> some = checked.subList(start, end);
                ModelInferRequest request = Framing.pack(contract, some);
                Framing.unpack(contract, some, retried(stub, () -> stub.modelInfer(request)))
                        .forEach(outputs -> results.add(read.apply(outputs)));
            }
            return results;
        });
    }

    private <T> T within(String model, Function<GRPCInferenceServiceBlockingStub, T> work) {
        Deadline end = Deadline.after(deadline.toNanos(), TimeUnit.NANOSECONDS);
        try {
            return work.apply(GRPCInferenceServiceGrpc.newBlockingStub(channel).withDeadline(end));
        } catch (StatusRuntimeException e) {
            throw new SeqrecException(model, address, e);
        }
    }

    private static <T> T retried(GRPCInferenceServiceBlockingStub stub, Supplier<T> request) {
        Deadline end = stub.getCallOptions().getDeadline();
        for (int tries = 1; ; tries++) {
            try {
                return request.get();
            } catch (StatusRuntimeException e) {
                long shortest = FIRST_PAUSE.toNanos() << (tries - 1);
                long pause = ThreadLocalRandom.current().nextLong(shortest, 2 * shortest);
                boolean again = e.getStatus().getCode() == Status.Code.UNAVAILABLE && tries < TRIES;
                if (!again || end.timeRemaining(TimeUnit.NANOSECONDS) <= pause) {
                    throw e;
                }
                sleep(pause);
            }
        }
    }

    private static void sleep(long nanoseconds) {
        try {
            TimeUnit.NANOSECONDS.sleep(nanoseconds);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw Status.CANCELLED.withDescription("interrupted").withCause(e).asRuntimeException();
        }
    }

    /** How to reach a server. */
    public static final class Builder {
        private final String address;
        private Duration deadline = Duration.ofSeconds(10);
        private TlsChannelCredentials.Builder tls;

        private Builder(String address) {
            this.address = address;
        }

        /** For each call, retries included; 10 seconds if none is given. */
        public Builder deadline(Duration deadline) {
            this.deadline = deadline;
            return this;
        }

        /** Encrypt the connection; the server's certificate has to be one that Java trusts. */
        public Builder tls() {
            if (tls == null) {
                tls = TlsChannelCredentials.newBuilder();
            }
            return this;
        }

        /** Encrypt the connection; {@code ca} (PEM) vouches for the server. */
        public Builder trust(Path ca) throws IOException {
            tls().tls.trustManager(ca.toFile());
            return this;
        }

        /** Encrypt the connection, and show this certificate (PEM) with its key (PEM, PKCS #8). */
        public Builder identity(Path cert, Path key) throws IOException {
            tls().tls.keyManager(cert.toFile(), key.toFile());
            return this;
        }

        /** A client, which connects at its first call. */
        public Client build() {
            ChannelCredentials credentials =
                    tls == null ? InsecureChannelCredentials.create() : tls.build();
            ManagedChannelBuilder<?> builder = Grpc.newChannelBuilder(address, credentials)
                    .maxInboundMessageSize(Integer.MAX_VALUE);
            // A call to this machine would go through the proxy of the environment, too.
            if (address.matches("(127\\.|localhost:|\\[::1\\]).*")) {
                builder.proxyDetector(target -> null);
            }
            return new Client(address, builder.build(), deadline);
        }
    }
}
