// What goes to a model and comes back: rows of values, by the names in the model's contract.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace seqrec {

using Strings = std::vector<std::string>;  // BYTES: UTF-8
using Floats = std::vector<float>;         // FP32
using Ints = std::vector<std::int32_t>;    // INT32

/// What a row has for one input or output; a single value is a list of one.
using Value = std::variant<Strings, Floats, Ints>;

/// Values by the name of an input or output. What a row of a call leaves out is unknown.
using Row = std::map<std::string, Value>;

/// The size of a tensor that takes, or gives, a list of any length.
inline constexpr std::size_t any = 0;

/// An input or output of a model.
struct Tensor {
  std::string name;
  std::string datatype;  // BYTES, FP32 or INT32
  std::size_t size;      // how many values a row has; `any` if that is up to the row

  /// The history that an input follows, or empty. A row has a list of any length then, parallel to
  /// the history; on the wire it is laid out in `size` values, so that the last one belongs to the
  /// history's last event that is no padding. For lists that are laid out already, leave it empty.
  std::string aligned_with = {};
};

/// What a model takes and gives.
struct Contract {
  std::string model;
  std::size_t max_batch_size;  // how many rows the server takes in one request
  std::vector<Tensor> inputs;
  std::vector<Tensor> outputs;

  std::shared_ptr<const Contract> filtered = {};       // what is asked instead if a call has filters
  std::shared_ptr<const Contract> similar_items = {};  // what is asked for similar items
};

/// How many values a row has for an input.
std::size_t size_of(const Row& row, const std::string& input);

/// A row's list for an input that follows a history, as it goes over the wire: the value at place
/// size - j belongs to the history's j-th last event, and is NaN if there is none.
Floats laid_out(const Row& row, const Tensor& tensor);

/// Throws std::invalid_argument for what the server would refuse, or would not get as it was meant.
void check(const Contract& contract, const Row& row);

/// The tensors' names, for a message.
std::string names(const std::vector<Tensor>& tensors);

}  // namespace seqrec
