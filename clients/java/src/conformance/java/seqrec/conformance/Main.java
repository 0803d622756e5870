package seqrec.conformance;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import seqrec.Client;
import seqrec.conformance.Golden.Request;

/** Replays the golden requests of a repository against its server, and prints what came of it. */
public final class Main {
    private static final Gson GSON = new GsonBuilder().disableHtmlEscaping().create();

    private final List<String> failures = new ArrayList<>();

    public static void main(String[] args) throws IOException {
        Map<String, String> flags = new HashMap<>();
        for (int i = 0; i + 1 < args.length; i += 2) {
            flags.put(args[i].replaceFirst("^--", ""), args[i + 1]);
        }
        if (!flags.keySet().containsAll(List.of("url", "repository"))) {
            System.err.println("usage: conformance --url HOST:PORT --repository DIR [...]");
            System.exit(2);
        }
        Main main = new Main();
        Map<String, Golden> models = Golden.readRepository(Path.of(flags.get("repository")), true);
        if (!models.containsKey("sasrec")) {
            System.err.println(flags.get("repository") + " has no sasrec, which the cases ask");
            System.exit(2);
        }
        try (Client client = Client.builder(flags.get("url")).build()) {
            Map<String, Object> report = main.replay(client, models);
            report.put("cases", main.cases(new Cases(client, models, flags)));
            report.put("failures", main.failures);
            System.out.println(GSON.toJson(report));
        }
        System.exit(main.failures.isEmpty() ? 0 : 1);
    }

    private Map<String, Object> replay(Client client, Map<String, Golden> models) {
        List<Double> milliseconds = new ArrayList<>();
        int passed = 0;
        for (Golden golden : models.values()) {
            for (Request request : golden.requests()) {
                long start = System.nanoTime();
                boolean same = passes(
                        request.name(),
                        () -> Comparison.replay(client, golden.contract(), request));
                milliseconds.add((System.nanoTime() - start) / 1e6);
                passed += same ? 1 : 0;
            }
        }
        milliseconds.sort(null);
        double p50 = milliseconds.isEmpty() ? 0 : milliseconds.get(milliseconds.size() / 2);
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("client", "java");
        report.put("requests", milliseconds.size());
        report.put("passed", passed);
        report.put("p50_ms", Math.round(p50 * 1000) / 1000.0);
        return report;
    }

    private Map<String, String> cases(Cases cases) {
        Map<String, String> outcomes = new LinkedHashMap<>();
        cases.all().forEach((name, run) -> {
            int first = failures.size();
            outcomes.put(name, passes(name, run) ? "ok" : failures.get(first));
        });
        return outcomes;
    }

    /** Whether it gives nothing that went wrong; what did goes to `failures`. */
    private boolean passes(String name, Callable<List<String>> check) {
        List<String> found;
        try {
            found = check.call();
        } catch (Exception e) {
            // Whatever it is, it is the client's failure, and the others are still to be tried.
            found = List.of(e.toString());
        }
        found.forEach(difference -> failures.add(name + ": " + difference));
        return found.isEmpty();
    }

    private Main() {}
}
