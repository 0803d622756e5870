// The golden requests of a repository: what golden.json holds, as rows.
#pragma once

#include <string>
#include <vector>

#include "seqrec/rows.h"

namespace conformance {

struct Golden {
  std::string name;  // for failures
  double atol, rtol;
  std::vector<seqrec::Row> rows, want;

  /// How an answer differs from the file's, or "". An answer may have only some of the outputs.
  std::string differs(std::size_t row, const seqrec::Row& got) const;
};

struct Served {
  seqrec::Contract contract;
  std::vector<Golden> requests;
};

/// Each model's contract and the requests of its newest version, by name. These hold tensors as they
/// go over the wire: a client has nothing to lay out, unless it is asked for.
std::vector<Served> read_repository(const std::string& folder, bool laid_out = true);

}  // namespace conformance
