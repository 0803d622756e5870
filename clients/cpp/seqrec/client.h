// Calls sequential recommenders on a Triton Inference Server, over gRPC and with raw item ids. The
// headers in models/ have a typed client for each model; what they share is here.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seqrec/error.h"
#include "seqrec/filters.h"
#include "seqrec/rows.h"

namespace seqrec {

/// PEM files of an encrypted connection.
struct Tls {
  std::string ca;    // who vouches for the server; empty: whom the system trusts
  std::string cert;  // what this side shows a server that asks for it, or empty
  std::string key;   // of cert
};

struct Options {
  std::chrono::milliseconds timeout = std::chrono::seconds(10);  // of a call that gives none
  std::optional<Tls> tls;                                        // none: not encrypted
};

/// How long a whole call may take, retries included; none: as the Options say.
using Timeout = std::optional<std::chrono::milliseconds>;

struct Item {
  std::string id;
  float score;
};

struct Recommendation {
  std::vector<Item> items;  // best first
  int known_items;          // how much of the row the model knew; 0: the answer is the cold start
};

/// A connection to a Triton server. Safe to use from many threads; copies share the connection. All
/// of it throws Error.
class Client {
 public:
  /// Sets up the connection to a HOST:PORT; the first call makes it.
  explicit Client(const std::string& address, const Options& options = {});

  /// Whether the server has the model ready to answer.
  bool ready(const std::string& model, Timeout timeout = {}) const;

  /// Every output of each row. More rows than the server takes at once go out as several requests,
  /// one after another.
  std::vector<Row> call(const Contract& contract, const std::vector<Row>& rows,
                        Timeout timeout = {}) const;

  /// Each row's best items: all that the model gives, or at most k.
  std::vector<Recommendation> recommend(const Contract& contract, const std::vector<Row>& rows,
                                        std::optional<std::size_t> k = {},
                                        Timeout timeout = {}) const;

  /// The same among what the filters allow; the contract's `filtered` is asked if there are any.
  std::vector<Recommendation> recommend(const Contract& contract, const std::vector<Row>& rows,
                                        std::optional<std::size_t> k, const Filters& filters,
                                        Timeout timeout = {}) const;

  /// For each list of ids the items nearest to them, by cosine; they themselves are left out. The
  /// contract's `similar_items` is asked.
  std::vector<Recommendation> similar(const Contract& contract, const std::vector<Strings>& ids,
                                      std::optional<std::size_t> k = {},
                                      const Filters& filters = {}, Timeout timeout = {}) const;

  /// A score for each of a row's candidates, in their order. An unknown one has the lowest float.
  std::vector<Floats> score(const Contract& contract, const std::vector<Row>& rows,
                            Timeout timeout = {}) const;

  /// Each row's vector.
  std::vector<Floats> encode(const Contract& contract, const std::vector<Row>& rows,
                             Timeout timeout = {}) const;

 private:
  /// What the filters say to ask; Error for what they must not say.
  Asked asked(const Contract& contract, const std::function<Asked()>& make) const;

  /// `call` for a model that has these outputs.
  std::vector<Row> call_for(std::initializer_list<std::string> outputs, const Contract& contract,
                            const std::vector<Row>& rows, Timeout timeout) const;
  std::vector<Floats> floats(const std::string& output, const Contract& contract,
                             const std::vector<Row>& rows, Timeout timeout) const;

  class Connection;
  std::shared_ptr<const Connection> connection_;
};

}  // namespace seqrec
