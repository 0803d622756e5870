#include "conformance/filters.h"

#include <algorithm>
#include <memory>
#include <stdexcept>

namespace conformance {
namespace {

using grpc::StatusCode;
using seqrec::Client;
using seqrec::Contract;
using seqrec::Filters;
using seqrec::Row;
using seqrec::Strings;

const std::string history = "history_item_ids";
const std::string nowhere = "127.0.0.1:1";

// sasrec with the graphs that it asks as well.
struct Models {
  Contract plain, sasrec;
  Strings attributes;
};

Strings ids_of(const std::vector<seqrec::Recommendation>& answers) {
  Strings ids;
  for (const auto& item : answers.at(0).items) ids.push_back(item.id);
  return ids;
}

Strings ids(const Client& client, const Models& models, const Strings& past,
            const Filters& filters = {}) {
  return ids_of(client.recommend(models.sasrec, {{{history, past}}}, 9, filters));
}

void due(const std::string& what, const Strings& found, const Strings& expected) {
  if (found == expected) return;
  std::string listed;
  for (const std::string& id : found) listed += " " + id;
  throw std::runtime_error(what + ": other ids:" + listed);
}

Filters allowing(const Strings& allowed) {
  Filters filters;
  filters.allow = allowed;
  return filters;
}

void filters_hold(const Client& client, const Models& models) {
  const Strings popular = ids(client, models, {});
  const std::string& first = popular.at(0);
  const std::string& second = popular.at(1);
  Filters without;
  without.exclude = {first};
  Strings found = ids(client, models, {}, without);
  found.resize(popular.size() - 1);
  due("exclude", found, {popular.begin() + 1, popular.end()});

  Filters two = allowing({first, second});
  due("seen", ids(client, models, {first}, two), {second});
  two.keep_seen = true;
  found = ids(client, models, {first}, two);
  if (!std::is_permutation(found.begin(), found.end(), popular.begin(), popular.begin() + 2)) {
    throw std::runtime_error("keep_seen: what was seen does not come back");
  }
  two.exclude = {first};
  due("both", ids(client, models, {}, two), {second});
  due("unknown items", ids(client, models, {}, allowing({"no such item"})), {});
  for (const std::string& attribute : models.attributes) {
    Filters where;
    where.where[attribute] = Strings{"no such value"};
    due("unknown " + attribute, ids(client, models, {}, where), {});
  }
}

void similar_items(const Client& client, const Models& models) {
  Strings query = ids(client, models, {});
  query.resize(2);
  const Strings found = ids_of(client.similar(models.sasrec, {query}, 3));
  for (const std::string& id : query) {
    if (std::find(found.begin(), found.end(), id) != found.end()) {
      throw std::runtime_error(id + " is similar to itself");
    }
  }
  if (found.size() != 3) throw std::runtime_error(std::to_string(found.size()) + " items, not 3");
  due("allow", ids_of(client.similar(models.sasrec, {{query[0]}}, 3, allowing(query))), {query[1]});
}

// What must be refused before anything is sent: nothing listens there.
void empty_filter(const Models& models) {
  const auto refused = [&](const std::string& said, const Filters& filters) {
    fails_with(StatusCode::INVALID_ARGUMENT, said,
               [&] { Client(nowhere).recommend(models.sasrec, {}, {}, filters); });
    fails_with(StatusCode::INVALID_ARGUMENT, said,
               [&] { Client(nowhere).similar(models.sasrec, {}, {}, filters); });
  };
  refused("allow", allowing({}));
  refused("allow", allowing({"", std::string(1, '\0')}));
  Filters unknown;
  unknown.where["no_such"] = Strings{"a"};
  refused("where no_such", unknown);
  for (const std::string& attribute : models.attributes) {
    Filters where;
    where.where[attribute] = Strings{};
    refused("where " + attribute, where);
  }
  Filters some;
  some.exclude = {"a"};
  fails_with(StatusCode::INVALID_ARGUMENT, "no filters",
             [&] { Client(nowhere).recommend(models.plain, {}, {}, some); });
  Filters seen;
  seen.keep_seen = true;
  fails_with(StatusCode::INVALID_ARGUMENT, "keep_seen",
             [&] { Client(nowhere).similar(models.sasrec, {}, {}, seen); });
}

// The plain model is asked twice, and the other once: the server counts.
void no_filter(const std::string& address, const Models& models) {
  Contract choice = models.plain;
  choice.model = "choice";
  Contract filtered = *models.sasrec.filtered;
  filtered.model = "choice_filtered";
  choice.filtered = std::make_shared<const Contract>(filtered);
  const Client client(address);
  const std::vector<Row> rows{{{history, Strings{"a"}}}};
  Filters filters;
  filters.where["no_such"] = std::nullopt;
  client.recommend(choice, rows);
  client.recommend(choice, rows, {}, filters);
  filters.exclude = {"a"};
  client.recommend(choice, rows, {}, filters);
}

}  // namespace

std::vector<Case> filter_cases(const Client& client, const std::vector<Served>& models,
                               const Servers& servers) {
  const auto named = [&](const std::string& name) -> std::shared_ptr<const Contract> {
    for (const Served& model : models) {
      if (model.contract.model == name) return std::make_shared<const Contract>(model.contract);
    }
    return {};
  };
  const auto plain = named("sasrec");
  auto found = std::make_shared<Models>();
  if (!plain || !named("sasrec_filtered") || !named("sasrec_similar_items")) return {};
  found->plain = found->sasrec = *plain;
  found->sasrec.filtered = named("sasrec_filtered");
  found->sasrec.similar_items = named("sasrec_similar_items");
  const std::string where = "allow_";
  for (const seqrec::Tensor& input : found->sasrec.filtered->inputs) {
    if (input.name.rfind(where, 0) == 0 && input.name != "allow_item_ids") {
      found->attributes.push_back(input.name.substr(where.size()));
    }
  }
  std::vector<Case> made{{"filters", [&client, found] { filters_hold(client, *found); }},
                         {"similar items", [&client, found] { similar_items(client, *found); }},
                         {"empty filter", [found] { empty_filter(*found); }}};
  if (!servers.flaky.empty()) {
    made.push_back({"no filter", [&servers, found] { no_filter(servers.flaky, *found); }});
  }
  return made;
}

}  // namespace conformance
