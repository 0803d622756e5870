// What has to happen apart from the golden answers.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "conformance/golden.h"
#include "seqrec/client.h"

namespace conformance {

/// Addresses; a case whose server is not given is left out.
struct Servers {
  std::string gone, silent, flaky, layouts, tls_url;
  seqrec::Tls tls;
};

struct Case {
  std::string name;
  std::function<void()> run;  // throws std::exception if it fails
};

std::vector<Case> cases(const seqrec::Client& client, const std::vector<Served>& models,
                        const Servers& servers);

}  // namespace conformance
