#include "seqrec/filters.h"

#include <algorithm>
#include <stdexcept>

namespace seqrec {
namespace {

const std::string exclude = "exclude_item_ids";
const std::string allow = "allow_item_ids";
const std::string keep_seen = "keep_seen";
const std::string query = "query_item_ids";
const std::string where = "allow_";  // before an attribute's name

// An input as the field that gives it.
std::string said(const std::string& name) {
  if (name == exclude) return "exclude";
  if (name == allow) return "allow";
  if (name == keep_seen) return "keep_seen";
  return "where " + name.substr(where.size());
}

// What is given, by the names of the inputs; an exclusion of nothing is none.
Row inputs(const Filters& filters) {
  Row given;
  if (!filters.exclude.empty()) given[exclude] = filters.exclude;
  if (filters.keep_seen) given[keep_seen] = Ints{1};
  std::map<std::string, std::optional<Strings>> allowed{{allow, filters.allow}};
  for (const auto& [attribute, values] : filters.where) allowed[where + attribute] = values;
  for (const auto& [name, values] : allowed) {
    if (!values) continue;
    // An empty value is padding; the server cuts one at NUL.
    if (std::all_of(values->begin(), values->end(), [](const std::string& value) {
          return value.empty() || value.front() == '\0';
        })) {
      throw std::invalid_argument(
          said(name) +
          " has a list without a value, which the server would take for no filter; leave it out if"
          " everything is allowed, and do not ask if nothing is");
    }
    given[name] = *values;
  }
  return given;
}

// The rows with the filters among their values; the first `own` inputs are no filters.
std::vector<Row> added(const Contract& asked, std::size_t own, std::vector<Row> rows,
                       const Row& given) {
  const auto first = asked.inputs.begin() + static_cast<std::ptrdiff_t>(own);
  for (const auto& [name, value] : given) {
    if (std::any_of(first, asked.inputs.end(),
                    [&name = name](const Tensor& input) { return input.name == name; })) {
      continue;
    }
    std::string taken;
    std::for_each(first, asked.inputs.end(), [&taken](const Tensor& input) {
      taken += (taken.empty() ? "" : ", ") + said(input.name);
    });
    throw std::invalid_argument(asked.model + " does not filter by " + said(name) + "; it takes " +
                                taken);
  }
  for (Row& row : rows) {
    for (const auto& [name, value] : given) row[name] = value;
  }
  return rows;
}

}  // namespace

Asked narrowed(const Contract& contract, const std::vector<Row>& rows, const Filters& filters) {
  const Row given = inputs(filters);
  if (given.empty()) return {&contract, rows};
  const Contract* filtered = contract.filtered.get();
  if (!filtered) throw std::invalid_argument(contract.model + " has no filters");
  return {filtered, added(*filtered, contract.inputs.size(), rows, given)};
}

Asked similar(const Contract& contract, const std::vector<Strings>& ids, const Filters& filters) {
  const Contract* asked = contract.similar_items.get();
  if (!asked) throw std::invalid_argument(contract.model + " has no similar items");
  std::vector<Row> rows;
  rows.reserve(ids.size());
  for (const Strings& list : ids) rows.push_back({{query, list}});
  return {asked, added(*asked, 1, std::move(rows), inputs(filters))};
}

}  // namespace seqrec
