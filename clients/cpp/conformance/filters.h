// What filters and similar items have to do.
#pragma once

#include <vector>

#include "conformance/cases.h"

namespace conformance {

/// None if the repository has no graphs with filters.
std::vector<Case> filter_cases(const seqrec::Client& client, const std::vector<Served>& models,
                               const Servers& servers);

/// Wants an Error of this code, whose message holds a text.
void fails_with(grpc::StatusCode code, const std::string& message,
                const std::function<void()>& run);

}  // namespace conformance
