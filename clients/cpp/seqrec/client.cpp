#include "seqrec/client.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "seqrec/connection.h"
#include "seqrec/wire.h"

namespace seqrec {
namespace {

using grpc::StatusCode;

std::string embedding_of(const Contract& contract) {
  constexpr std::string_view suffix = "_embedding";
  for (const Tensor& tensor : contract.outputs) {
    const std::string& name = tensor.name;
    const auto end = name.rfind(suffix);
    if (end != std::string::npos && end + suffix.size() == name.size()) return name;
  }
  return "user_embedding";
}

std::vector<Item> items(Strings& ids, const Floats& scores, std::optional<std::size_t> k) {
  std::size_t size = ids.size();
  while (size > 0 && ids[size - 1].empty()) --size;
  size = std::min(size, k.value_or(size));
  std::vector<Item> made;
  made.reserve(size);
  for (std::size_t i = 0; i < size; ++i) made.push_back({std::move(ids[i]), scores[i]});
  return made;
}

}  // namespace

Client::Client(const std::string& address, const Options& options)
    : connection_(std::make_shared<Connection>(address, options)) {}

bool Client::ready(const std::string& model, Timeout timeout) const {
  inference::ModelReadyRequest request;
  request.set_name(model);
  inference::ModelReadyResponse response;
  connection_->retry(model, connection_->deadline(timeout), [&](grpc::ClientContext& context) {
    return connection_->server().ModelReady(&context, request, &response);
  });
  return response.ready();
}

std::vector<Row> Client::call(const Contract& contract, const std::vector<Row>& rows,
                              Timeout timeout) const {
  const Deadline deadline = connection_->deadline(timeout);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    try {
      check(contract, rows[i]);
    } catch (const std::invalid_argument& error) {
      throw connection_->failure(StatusCode::INVALID_ARGUMENT, contract.model,
                                 "row " + std::to_string(i) + ", " + error.what());
    }
  }
  const auto most = static_cast<std::ptrdiff_t>(std::max<std::size_t>(contract.max_batch_size, 1));
  std::vector<Row> answers;
  answers.reserve(rows.size());
  for (auto first = rows.begin(); first != rows.end();) {
    const wire::Batch batch{first, first + std::min(most, rows.end() - first)};
    const inference::ModelInferRequest request = wire::encode(contract, batch);
    inference::ModelInferResponse response;
    connection_->retry(contract.model, deadline, [&](grpc::ClientContext& context) {
      return connection_->server().ModelInfer(&context, request, &response);
    });
    try {
      std::vector<Row> decoded = wire::decode(contract, batch, response);
      std::move(decoded.begin(), decoded.end(), std::back_inserter(answers));
    } catch (const std::runtime_error& error) {
      throw connection_->failure(StatusCode::INTERNAL, contract.model, error.what());
    }
    first = batch.last;
  }
  return answers;
}

std::vector<Row> Client::call_for(std::initializer_list<std::string> outputs,
                                  const Contract& contract, const std::vector<Row>& rows,
                                  Timeout timeout) const {
  for (const std::string& output : outputs) {
    if (std::none_of(contract.outputs.begin(), contract.outputs.end(),
                     [&](const Tensor& tensor) { return tensor.name == output; })) {
      throw connection_->failure(
          StatusCode::INVALID_ARGUMENT, contract.model,
          "no output " + output + "; the model gives " + names(contract.outputs));
    }
  }
  return call(contract, rows, timeout);
}

std::vector<Recommendation> Client::recommend(const Contract& contract,
                                              const std::vector<Row>& rows,
                                              std::optional<std::size_t> k,
                                              Timeout timeout) const {
  std::vector<Recommendation> made;
  made.reserve(rows.size());
  for (Row& answer : call_for({"item_ids", "scores", "known_items"}, contract, rows, timeout)) {
    auto& ids = std::get<Strings>(answer.at("item_ids"));
    const auto& scores = std::get<Floats>(answer.at("scores"));
    const auto& known = std::get<Ints>(answer.at("known_items"));
    if (ids.size() != scores.size() || known.size() != 1) {
      throw connection_->failure(StatusCode::INTERNAL, contract.model,
                                 "malformed answer, row " + std::to_string(made.size()) +
                                     ": item_ids, scores and known_items do not fit together");
    }
    made.push_back({items(ids, scores, k), known.front()});
  }
  return made;
}

std::vector<Recommendation> Client::recommend(const Contract& contract,
                                              const std::vector<Row>& rows,
                                              std::optional<std::size_t> k, const Filters& filters,
                                              Timeout timeout) const {
  const auto [found, narrow] = asked(contract, [&] { return narrowed(contract, rows, filters); });
  return recommend(*found, narrow, k, timeout);
}

std::vector<Recommendation> Client::similar(const Contract& contract,
                                            const std::vector<Strings>& ids,
                                            std::optional<std::size_t> k, const Filters& filters,
                                            Timeout timeout) const {
  const auto [found, rows] =
      asked(contract, [&] { return seqrec::similar(contract, ids, filters); });
  return recommend(*found, rows, k, timeout);
}

Asked Client::asked(const Contract& contract, const std::function<Asked()>& make) const {
  try {
    return make();
  } catch (const std::invalid_argument& error) {
    throw connection_->failure(StatusCode::INVALID_ARGUMENT, contract.model, error.what());
  }
}

std::vector<Floats> Client::score(const Contract& contract, const std::vector<Row>& rows,
                                  Timeout timeout) const {
  return floats("scores", contract, rows, timeout);
}

std::vector<Floats> Client::encode(const Contract& contract, const std::vector<Row>& rows,
                                   Timeout timeout) const {
  return floats(embedding_of(contract), contract, rows, timeout);
}

std::vector<Floats> Client::floats(const std::string& output, const Contract& contract,
                                   const std::vector<Row>& rows, Timeout timeout) const {
  std::vector<Floats> made;
  made.reserve(rows.size());
  for (Row& answer : call_for({output}, contract, rows, timeout)) {
    made.push_back(std::move(std::get<Floats>(answer.at(output))));
  }
  return made;
}

}  // namespace seqrec
