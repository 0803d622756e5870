package seqrec.conformance;

import io.grpc.Status.Code;
import java.io.IOException;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import seqrec.Client;
import seqrec.Contract;
import seqrec.Contract.Tensor;
import seqrec.Datatype;
import seqrec.Recommendation;
import seqrec.Recommendation.Item;
import seqrec.SeqrecException;

/** What has to happen when something is wrong; each case gives what did not happen. */
final class Cases {
    private static final Duration ANY_TIME = Duration.ofMinutes(1);
    private static final Map<String, Object> ROW = Map.of("history_item_ids", List.of("a", "b"));

    private final Client client;
    private final Map<String, Golden> models;
    private final Map<String, String> flags;
    private final Golden sasrec;

    Cases(Client client, Map<String, Golden> models, Map<String, String> flags) {
        this.client = client;
        this.models = models;
        this.flags = flags;
        this.sasrec = models.get("sasrec");
    }

    /** The cases that the flags allow. */
    Map<String, Callable<List<String>>> all() {
        Map<String, Callable<List<String>>> cases = new LinkedHashMap<>();
        cases.put("all rows in one call", this::allRows);
        cases.put("unknown model", () -> {
            String name = "no_such_model";
            return fails(Code.NOT_FOUND, client, named(name), ROW, name, ANY_TIME);
        });
        cases.put("wrong dtype", () -> {
            Tensor history = new Tensor("history_item_ids", Datatype.FP32, Tensor.ANY);
            Contract contract = sasrec.contract();
            Contract wrong = new Contract(
                    contract.model(),
                    contract.maxBatchSize(),
                    List.of(history),
                    contract.outputs());
            Map<String, Object> row = Map.of("history_item_ids", List.of(1, 2));
            return fails(Code.INVALID_ARGUMENT, client, wrong, row, "", ANY_TIME);
        });
        cases.put("unknown input", () -> refused(Map.of("no_such_input", "a")));
        cases.put("wrong value", () -> {
            List<String> found = new ArrayList<>(refused(Map.of("history_item_ids", "a")));
            found.addAll(refused(Map.of("history_item_ids", List.of(1))));
            found.addAll(refused(Map.of("history_item_ids", List.of("\ud800"))));
            found.addAll(tooLarge());
            return found;
        });
        cases.put("no rows", () -> {
            try (Client nowhere = nowhere()) {
                boolean none = nowhere.call(sasrec.contract(), List.of()).isEmpty();
                return none ? List.of() : List.of("an answer to no rows");
            }
        });
        when("gone", cases, "server gone", this::gone);
        when("silent", cases, "deadline", this::deadline);
        when("flaky", cases, "retries", this::retries);
        when("flaky", cases, "malformed answer", this::malformed);
        when("layouts", cases, "laid out", this::laidOut);
        if (flags.keySet().containsAll(List.of("tls-ca", "tls-cert", "tls-key"))) {
            when("tls-url", cases, "tls", this::tls);
        }
        cases.putAll(FilterCases.all(client, models, flags.get("flaky")));
        return cases;
    }

    private void when(
            String flag,
            Map<String, Callable<List<String>>> cases,
            String name,
            Callable<List<String>> run) {
        if (flags.containsKey(flag)) {
            cases.put(name, run);
        }
    }

    private List<String> allRows() {
        return models.values().stream()
                .flatMap(golden -> Comparison.allRows(client, golden).stream())
                .toList();
    }

    private List<String> gone() {
        try (Client gone = Client.builder(flags.get("gone")).build()) {
            Contract contract = sasrec.contract();
            return fails(Code.UNAVAILABLE, gone, contract, ROW, "", Duration.ofSeconds(9));
        }
    }

    private List<String> deadline() {
        try (Client silent = Client.builder(flags.get("silent")).build()) {
            Client hasty = silent.withDeadline(Duration.ofMillis(300));
            Contract contract = sasrec.contract();
            return fails(Code.DEADLINE_EXCEEDED, hasty, contract, ROW, "", Duration.ofSeconds(9));
        }
    }

    private List<String> retries() {
        try (Client flaky = Client.builder(flags.get("flaky")).build()) {
            List<Recommendation> due =
                    List.of(new Recommendation(List.of(new Item("a", 2), new Item("b", 1)), 1));
            List<Recommendation> answer =
                    flaky.recommend(named("unavailable_twice"), List.of(ROW), Integer.MAX_VALUE);
            List<String> found = new ArrayList<>();
            if (!answer.equals(due)) {
                found.add("the answer is " + answer);
            }
            for (Code code : List.of(Code.UNAVAILABLE, Code.INTERNAL)) {
                Contract contract = named(code.name().toLowerCase(Locale.ROOT));
                found.addAll(fails(code, flaky, contract, ROW, "", ANY_TIME));
            }
            return found;
        }
    }

    private List<String> malformed() {
        try (Client flaky = Client.builder(flags.get("flaky")).build()) {
            return fails(Code.INTERNAL, flaky, named("torn"), ROW, "", ANY_TIME);
        }
    }

    /** Lists that follow their histories, to a server that looks at what comes. */
    private List<String> laidOut() throws IOException {
        Path folder = Path.of(flags.get("layouts"));
        Golden lists = Golden.readRepository(folder, false).get("laid_out");
        try (Client flaky = Client.builder(flags.get("flaky")).build()) {
            return Comparison.allCalled(flaky, lists);
        }
    }

    private List<String> tls() throws IOException {
        String url = flags.get("tls-url");
        Path cert = Path.of(flags.get("tls-cert"));
        Path key = Path.of(flags.get("tls-key"));
        Path ca = Path.of(flags.get("tls-ca"));
        Contract contract = sasrec.contract();
        try (Client trusting = Client.builder(url).trust(ca).identity(cert, key).build();
                Client doubting = Client.builder(url).identity(cert, key).build()) {
            List<String> found = new ArrayList<>(
                    Comparison.replay(trusting, contract, sasrec.requests().get(0)));
            found.addAll(fails(Code.UNAVAILABLE, doubting, contract, ROW, "", ANY_TIME));
            return found;
        }
    }

    private Contract named(String model) {
        Contract contract = sasrec.contract();
        return new Contract(model, contract.maxBatchSize(), contract.inputs(), contract.outputs());
    }

    /** Where nothing listens: what fails otherwise than UNAVAILABLE was never sent. */
    private static Client nowhere() {
        return Client.builder("127.0.0.1:1").build();
    }

    private List<String> refused(Map<String, Object> row) {
        try (Client nowhere = nowhere()) {
            return fails(Code.INVALID_ARGUMENT, nowhere, sasrec.contract(), row, "", ANY_TIME);
        }
    }

    /** Numbers that a datatype cannot hold; what it can has another outcome where nothing listens. */
    private static List<String> tooLarge() {
        BigInteger enormous = BigInteger.TEN.pow(400);
        List<Number> floats =
                List.of(1e39, -1e39, 3.4028236e38, enormous, new BigDecimal(enormous.negate()));
        List<Number> ints =
                List.of(1L << 31, -(1L << 31) - 1, 1L << 32, 1.5, Double.NaN, enormous, 1e10f);
        List<String> found = new ArrayList<>();
        try (Client nowhere = nowhere()) {
            for (Number value : floats) {
                found.addAll(number(nowhere, Datatype.FP32, value, Code.INVALID_ARGUMENT));
            }
            for (Number value : ints) {
                found.addAll(number(nowhere, Datatype.INT32, value, Code.INVALID_ARGUMENT));
            }
            for (Number value : List.of(3.4028235e38, Double.NEGATIVE_INFINITY, Float.NaN)) {
                found.addAll(number(nowhere, Datatype.FP32, value, Code.UNAVAILABLE));
            }
        }
        return found;
    }

    private static List<String> number(
            Client client, Datatype datatype, Number value, Code outcome) {
        Contract contract =
                new Contract("m", 1, List.of(new Tensor("x", datatype, 1)), List.of());
        return fails(outcome, client, contract, Map.of("x", value), "", ANY_TIME);
    }

    private static List<String> fails(
            Code code,
            Client client,
            Contract contract,
            Map<String, Object> row,
            String said,
            Duration within) {
        long start = System.nanoTime();
        try {
            return List.of(code + " is due, found " + client.call(contract, List.of(row)));
        } catch (SeqrecException e) {
            if (e.code() != code || !e.getMessage().contains(said)) {
                return List.of(code + " is due, found " + e.getMessage());
            }
            Duration took = Duration.ofNanos(System.nanoTime() - start);
            boolean late = took.compareTo(within) > 0;
            return late ? List.of(code + " after " + took.toMillis() + " ms") : List.of();
        }
    }
}
