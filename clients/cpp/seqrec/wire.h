// Rows as the tensors of a request, and an answer's tensors as rows. Internal to the library.
#pragma once

#include <inference.pb.h>

#include <cstddef>
#include <vector>

#include "seqrec/rows.h"

namespace seqrec::wire {

/// Rows that go out in one request.
struct Batch {
  std::vector<Row>::const_iterator first, last;

  auto begin() const { return first; }
  auto end() const { return last; }
  std::size_t size() const { return static_cast<std::size_t>(last - first); }
};

/// Each list padded to the longest of the batch.
inference::ModelInferRequest encode(const Contract& contract, Batch batch);

/// The answer's rows, without what padding added. Throws std::runtime_error if it is malformed.
std::vector<Row> decode(const Contract& contract, Batch batch,
                        const inference::ModelInferResponse& response);

}  // namespace seqrec::wire
