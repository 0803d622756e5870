#include "conformance/all_rows.h"

#include <limits>
#include <stdexcept>
#include <utility>

namespace conformance {
namespace {

using seqrec::Row;
using seqrec::Tensor;

// Puts the empty ids that `recommend` leaves out back to where the file has them.
Row whole(const seqrec::Recommendation& answer, std::size_t size) {
  seqrec::Strings ids(size);
  seqrec::Floats scores(size, std::numeric_limits<float>::lowest());
  for (std::size_t i = 0; i < answer.items.size(); ++i) {
    ids[i] = answer.items[i].id;
    scores[i] = answer.items[i].score;
  }
  return {{"item_ids", std::move(ids)},
          {"scores", std::move(scores)},
          {"known_items", seqrec::Ints{answer.known_items}}};
}

std::vector<Row> by_method(const seqrec::Client& client, const seqrec::Contract& contract,
                           const std::vector<Row>& rows) {
  std::vector<Row> answers;
  const Tensor& output = contract.outputs.at(0);
  if (output.name == "item_ids") {
    for (const auto& answer : client.recommend(contract, rows)) {
      answers.push_back(whole(answer, output.size));
    }
    return answers;
  }
  for (auto& list : output.name == "scores" ? client.score(contract, rows)
                                            : client.encode(contract, rows)) {
    answers.push_back({{output.name, std::move(list)}});
  }
  return answers;
}

}  // namespace

void all_rows(const seqrec::Client& client, const std::vector<Served>& models) {
  for (const auto& [contract, requests] : models) {
    std::vector<Row> rows;
    for (const Golden& request : requests) {
      rows.insert(rows.end(), request.rows.begin(), request.rows.end());
    }
    const std::vector<Row> answers = by_method(client, contract, rows);
    if (answers.size() != rows.size()) throw std::runtime_error(contract.model + ": rows missing");
    auto answer = answers.begin();
    for (const Golden& request : requests) {
      for (std::size_t i = 0; i < request.rows.size(); ++i, ++answer) {
        const std::string found = request.differs(i, *answer);
        if (!found.empty()) throw std::runtime_error(found);
      }
    }
  }
}

}  // namespace conformance
