#include "conformance/cases.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "conformance/all_rows.h"
#include "conformance/filters.h"
#include "seqrec/scalar.h"

namespace conformance {
namespace {

using grpc::StatusCode;
using seqrec::Client;
using seqrec::Contract;
using seqrec::Floats;
using seqrec::Options;
using seqrec::Row;
using seqrec::Strings;
using namespace std::chrono_literals;

const std::string history = "history_item_ids";
const std::vector<Row> one_item{{{history, Strings{"1"}}}};

// Refuses connections: a call that has another outcome than UNAVAILABLE sent nothing.
const std::string nowhere = "127.0.0.1:1";

// sasrec's contract under another name, and with a history of another type.
Contract like(const std::string& model, const std::string& datatype = "BYTES") {
  return {model,
          64,
          {{history, datatype, seqrec::any}},
          {{"item_ids", "BYTES", 100}, {"scores", "FP32", 100}, {"known_items", "INT32", 1}}};
}

void within(std::chrono::milliseconds limit, const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  if (std::chrono::steady_clock::now() - start > limit) throw std::runtime_error("too late");
}

void refused(const Row& row, const std::string& message) {
  fails_with(StatusCode::INVALID_ARGUMENT, message,
             [&] { Client(nowhere).call(like("sasrec"), {row}); });
}

// Numbers that the type of a row's field cannot hold.
void too_large() {
  for (const double number : {1e39, -1e39, 3.4028236e38}) {
    fails_with(StatusCode::INVALID_ARGUMENT, "FP32", [&] { seqrec::Scalar<float>{number}; });
  }
  constexpr double infinity = std::numeric_limits<double>::infinity();
  for (const double number : {2147483648.0, -2147483649.0, 4294967297.0, 1.5, infinity}) {
    fails_with(StatusCode::INVALID_ARGUMENT, "INT32", [&] { seqrec::Scalar<int>{number}; });
  }
  fails_with(StatusCode::INVALID_ARGUMENT, "INT32", [] { seqrec::Scalar<int>{4294967297LL}; });
  fails_with(StatusCode::INVALID_ARGUMENT, "INT32", [] { seqrec::Scalar<int>{std::nan("")}; });
  seqrec::Scalar<float> age = 31;
  age = 3.4028235e38;
  if (age != std::numeric_limits<float>::max()) throw std::runtime_error("not the largest");
  age = -infinity;
  seqrec::Scalar<int> month = std::numeric_limits<int>::min();
  month = std::nullopt;
  if (*age != -infinity || month) throw std::runtime_error("another number");
}

void retries(const std::string& address) {
  const Client client(address);
  const auto answers = client.recommend(like("unavailable_twice"), one_item);
  const auto& [items, known_items] = answers.at(0);
  if (items.size() != 2 || items[0].id != "a" || items[0].score != 2 || items[1].id != "b" ||
      items[1].score != 1 || known_items != 1) {
    throw std::runtime_error("another answer than a and b");
  }
  fails_with(StatusCode::UNAVAILABLE, "", [&] { client.call(like("unavailable"), one_item); });
  fails_with(StatusCode::INTERNAL, "", [&] { client.call(like("internal"), one_item); });
}

// Rows whose lists follow their histories, to a server that looks at what comes.
void laid_out(const Servers& servers) {
  const auto models = read_repository(servers.layouts, false);
  const auto& [contract, requests] = models.at(0);
  std::vector<Row> rows;
  for (const Golden& request : requests) rows.push_back(request.rows.at(0));
  const std::vector<Row> answers = Client(servers.flaky).call(contract, rows);
  if (answers.size() != rows.size()) throw std::runtime_error("rows missing");
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (const auto found = requests[i].differs(0, answers[i]); !found.empty()) {
      throw std::runtime_error(found);
    }
  }
}

void encrypted(const Servers& servers, const Golden& request) {
  const auto call = [&](const seqrec::Tls& tls) {
    Options options;
    options.tls = tls;
    return Client(servers.tls_url, options).call(like("sasrec"), request.rows);
  };
  const std::vector<Row> answers = call(servers.tls);
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (const auto found = request.differs(i, answers[i]); !found.empty()) {
      throw std::runtime_error(found);
    }
  }
  fails_with(StatusCode::UNAVAILABLE, "",
             [&] { call({"", servers.tls.cert, servers.tls.key}); });
}

}  // namespace

void fails_with(StatusCode code, const std::string& message, const std::function<void()>& run) {
  try {
    run();
  } catch (const seqrec::Error& error) {
    if (error.code == code && error.message.find(message) != std::string::npos) return;
    throw;
  }
  throw std::runtime_error("status " + std::to_string(code) + " expected, it succeeded");
}

std::vector<Case> cases(const Client& client, const std::vector<Served>& models,
                        const Servers& servers) {
  std::vector<Case> made{
      {"all rows in one call", [&] { all_rows(client, models); }},
      {"unknown model",
       [&] {
         fails_with(StatusCode::NOT_FOUND, "no_such_model",
                    [&] { client.call(like("no_such_model"), one_item); });
       }},
      {"unknown input", [] { refused({{"histroy", Strings{"1"}}}, "histroy"); }},
      {"wrong value",
       [] {
         refused({{history, Floats{1}}}, "found FP32");
         refused({{history, Strings{"1", "\xff"}}}, "UTF-8");
         too_large();
       }},
      {"no rows",
       [] {
         if (!Client(nowhere).call(like("sasrec"), {}).empty()) throw std::runtime_error("rows");
       }},
  };
  const auto sasrec = std::find_if(models.begin(), models.end(), [](const Served& model) {
    return model.contract.model == "sasrec";
  });
  if (sasrec != models.end()) {
    made.push_back({"wrong dtype", [&] {
                      fails_with(StatusCode::INVALID_ARGUMENT, history, [&] {
                        client.call(like("sasrec", "FP32"), {{{history, Floats{1}}}});
                      });
                    }});
  }
  if (!servers.gone.empty()) {
    made.push_back({"server gone", [&] {
                      within(9s, [&] {
                        fails_with(StatusCode::UNAVAILABLE, "", [&] {
                          Client(servers.gone).call(like("sasrec"), one_item);
                        });
                      });
                    }});
  }
  if (!servers.silent.empty()) {
    made.push_back({"deadline", [&] {
                      within(9s, [&] {
                        fails_with(StatusCode::DEADLINE_EXCEEDED, "", [&] {
                          Client(servers.silent).call(like("sasrec"), one_item, 300ms);
                        });
                      });
                    }});
  }
  if (!servers.flaky.empty()) {
    made.push_back({"retries", [&] { retries(servers.flaky); }});
    made.push_back({"malformed answer", [&] {
                      fails_with(StatusCode::INTERNAL, "malformed", [&] {
                        Client(servers.flaky).call(like("torn"), one_item);
                      });
                    }});
  }
  if (!servers.flaky.empty() && !servers.layouts.empty()) {
    made.push_back({"laid out", [&] { laid_out(servers); }});
  }
  if (!servers.tls_url.empty() && sasrec != models.end()) {
    const Golden& first = sasrec->requests.at(0);
    made.push_back({"tls", [&] { encrypted(servers, first); }});
  }
  const std::vector<Case> more = filter_cases(client, models, servers);
  made.insert(made.end(), more.begin(), more.end());
  return made;
}

}  // namespace conformance
