// Replays the golden requests of a repository against the server that serves it, tries what has to
// fail, and prints what it found as one JSON object.
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>

#include "conformance/cases.h"
#include "conformance/golden.h"
#include "seqrec/client.h"

namespace {

using conformance::Golden;
using conformance::Served;
using google::protobuf::Struct;

struct Report {
  int requests = 0;
  int passed = 0;
  std::vector<double> milliseconds;
  std::map<std::string, std::string> cases;
  std::vector<std::string> failures;
};

// Sends a golden request; what is wrong with its answer, or "".
std::string problem(const seqrec::Client& client, const Served& model, const Golden& request) {
  const std::vector<seqrec::Row> answers = client.call(model.contract, request.rows);
  if (answers.size() != request.rows.size()) return request.name + ": rows missing";
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (auto found = request.differs(i, answers[i]); !found.empty()) return found;
  }
  return "";
}

void replay(const seqrec::Client& client, const Served& model, Report& report) {
  for (const Golden& request : model.requests) {
    ++report.requests;
    std::string found;
    const auto start = std::chrono::steady_clock::now();
    try {
      found = problem(client, model, request);
    } catch (const seqrec::Error& error) {
      found = request.name + ": " + error.what();
    }
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
    report.milliseconds.push_back(took.count());
    if (found.empty()) {
      ++report.passed;
    } else {
      report.failures.push_back(found);
    }
  }
}

std::string json(Report report) {
  Struct made;
  auto& fields = *made.mutable_fields();
  fields["client"].set_string_value("cpp");
  fields["requests"].set_number_value(report.requests);
  fields["passed"].set_number_value(report.passed);
  const auto middle = report.milliseconds.begin() +
                      static_cast<std::ptrdiff_t>(report.milliseconds.size() / 2);
  std::nth_element(report.milliseconds.begin(), middle, report.milliseconds.end());
  fields["p50_ms"].set_number_value(*middle);
  auto& cases = *fields["cases"].mutable_struct_value()->mutable_fields();
  for (const auto& [name, outcome] : report.cases) cases[name].set_string_value(outcome);
  auto& failures = *fields["failures"].mutable_list_value();
  for (const auto& failure : report.failures) failures.add_values()->set_string_value(failure);
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(made, &text);
  if (!status.ok()) throw std::runtime_error(status.ToString());
  return text;
}

// --name value, for each of these names.
std::map<std::string, std::string> options(int argc, char** argv) {
  std::map<std::string, std::string> given;
  for (const char* name : {"--url", "--repository", "--gone", "--silent", "--flaky", "--layouts",
                           "--tls-url", "--tls-ca", "--tls-cert", "--tls-key"}) {
    given[name];
  }
  for (int i = 1; i < argc; i += 2) {
    const auto found = given.find(argv[i]);
    if (found == given.end() || i + 1 == argc) {
      throw std::invalid_argument(std::string(argv[i]) + " is no option, or has no value");
    }
    found->second = argv[i + 1];
  }
  return given;
}

}  // namespace

int main(int argc, char** argv) try {
  const auto given = options(argc, argv);
  const std::vector<Served> models = conformance::read_repository(given.at("--repository"));
  if (models.empty() || given.at("--url").empty()) {
    throw std::invalid_argument("needs --url and, with models in it, --repository");
  }
  const seqrec::Client client(given.at("--url"));
  Report report;
  for (const Served& model : models) {
    if (!client.ready(model.contract.model)) {
      report.failures.push_back(model.contract.model + " is not ready");
    }
    replay(client, model, report);
  }
  const conformance::Servers servers{
      given.at("--gone"),    given.at("--silent"),
      given.at("--flaky"),   given.at("--layouts"), given.at("--tls-url"),
      {given.at("--tls-ca"), given.at("--tls-cert"), given.at("--tls-key")}};
  for (const auto& [name, run] : conformance::cases(client, models, servers)) {
    try {
      run();
      report.cases[name] = "ok";
    } catch (const std::exception& error) {
      report.cases[name] = "failed";
      report.failures.push_back(name + ": " + error.what());
    }
  }
  std::cout << json(report) << '\n';
  return report.failures.empty() ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << "conformance: " << error.what() << '\n';
  return 2;
}
