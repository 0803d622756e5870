// All rows of a model in one call, by the method that its outputs are for.
#pragma once

#include <vector>

#include "conformance/golden.h"
#include "seqrec/client.h"

namespace conformance {

/// Throws std::runtime_error if an answer is not the file's.
void all_rows(const seqrec::Client& client, const std::vector<Served>& models);

}  // namespace conformance
