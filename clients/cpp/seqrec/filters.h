// What may come back of what a model would recommend.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seqrec/rows.h"

namespace seqrec {

/// All of it holds together, for every row of a call. A list of what is allowed must have a value:
/// the server would take an empty one for no filter, so a call with one throws.
struct Filters {
  Strings exclude;                                      // these never come back
  std::optional<Strings> allow;                         // only these items may come back
  std::map<std::string, std::optional<Strings>> where;  // by attribute, one of the values
  bool keep_seen = false;                               // what the history holds may come back
};

/// A contract to ask, and the rows to ask it with.
using Asked = std::pair<const Contract*, std::vector<Row>>;

/// The contract itself if nothing filters, else its `filtered`. Throws std::invalid_argument.
Asked narrowed(const Contract& contract, const std::vector<Row>& rows, const Filters& filters);

/// The contract's `similar_items`, asked for what is near to each list of ids. Throws
/// std::invalid_argument.
Asked similar(const Contract& contract, const std::vector<Strings>& ids, const Filters& filters);

}  // namespace seqrec
