#include "seqrec/wire.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string_view>

namespace seqrec::wire {
namespace {

// The input that an output of any length runs parallel to.
constexpr const char* candidates = "candidate_ids";

// Gives every value of the batch to `add`, row by row.
template <typename Values, typename Add>
void pad(Batch batch, const std::string& name, std::size_t width,
         const typename Values::value_type& unknown, Add add) {
  for (const Row& row : batch) {
    std::size_t missing = width;
    if (const auto found = row.find(name); found != row.end()) {
      const auto& values = std::get<Values>(found->second);
      std::for_each(values.begin(), values.end(), add);
      missing -= values.size();
    }
    for (; missing > 0; --missing) add(unknown);
  }
}

// The rows' lists for an input that follows a history, or nothing for another input.
std::vector<Row> laid_out(Batch batch, const Tensor& tensor) {
  std::vector<Row> laid;
  if (tensor.aligned_with.empty()) return laid;
  for (const Row& row : batch) laid.push_back({{tensor.name, seqrec::laid_out(row, tensor)}});
  return laid;
}

std::uint32_t little_endian(const char* bytes) {
  std::uint32_t number = 0;
  for (int i = 3; i >= 0; --i) number = number << 8 | static_cast<unsigned char>(bytes[i]);
  return number;
}

Strings strings(std::string_view raw, std::size_t count) {
  Strings texts;
  texts.reserve(count);
  while (raw.size() >= sizeof(std::uint32_t)) {
    const std::uint32_t length = little_endian(raw.data());
    raw.remove_prefix(sizeof length);
    if (length > raw.size()) throw std::runtime_error("a string ends too early");
    texts.emplace_back(raw.substr(0, length));
    raw.remove_prefix(length);
  }
  if (!raw.empty() || texts.size() != count) {
    throw std::runtime_error(std::to_string(texts.size()) + " strings and " +
                             std::to_string(raw.size()) + " more bytes for " +
                             std::to_string(count) + " strings");
  }
  return texts;
}

template <typename Numbers>
Numbers numbers(std::string_view raw, std::size_t count) {
  if (raw.size() != 4 * count) {
    throw std::runtime_error(std::to_string(raw.size()) + " bytes for " + std::to_string(count) +
                             " numbers");
  }
  Numbers values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t bits = little_endian(raw.data() + 4 * i);
    static_assert(sizeof values[i] == sizeof bits);
    std::memcpy(&values[i], &bits, sizeof bits);
  }
  return values;
}

struct Output {
  Value values;
  std::size_t width;
};

Output output(const Tensor& tensor, std::size_t rows,
              const inference::ModelInferResponse& response) {
  const auto found = std::find_if(response.outputs().begin(), response.outputs().end(),
                                  [&](const auto& entry) { return entry.name() == tensor.name; });
  const auto index = static_cast<int>(found - response.outputs().begin());
  if (index >= response.raw_output_contents_size()) throw std::runtime_error("not there");
  const std::string& raw = response.raw_output_contents(index);
  // A value takes four bytes or more, so a width beyond the bytes is never right.
  if (found->shape_size() != 2 || found->shape(0) != static_cast<std::int64_t>(rows) ||
      found->shape(1) < 0 || static_cast<std::uint64_t>(found->shape(1)) > raw.size() ||
      found->datatype() != tensor.datatype) {
    throw std::runtime_error("another shape or type than " + tensor.datatype + " of " +
                             std::to_string(rows) + " rows");
  }
  const auto width = static_cast<std::size_t>(found->shape(1));
  if (tensor.datatype == "BYTES") return {strings(raw, rows * width), width};
  if (tensor.datatype == "FP32") return {numbers<Floats>(raw, rows * width), width};
  return {numbers<Ints>(raw, rows * width), width};
}

// Values `from` to `from + size` of a list.
Value slice(const Value& value, std::size_t from, std::size_t size) {
  return std::visit(
      [&](const auto& values) -> Value {
        const auto first = values.begin() + static_cast<std::ptrdiff_t>(from);
        return std::decay_t<decltype(values)>(first, first + static_cast<std::ptrdiff_t>(size));
      },
      value);
}

}  // namespace

inference::ModelInferRequest encode(const Contract& contract, Batch batch) {
  inference::ModelInferRequest request;
  request.set_model_name(contract.model);
  for (const Tensor& tensor : contract.inputs) {
    std::size_t width = tensor.size;
    if (width == any) {
      for (const Row& row : batch) width = std::max(width, size_of(row, tensor.name));
    }
    auto& input = *request.add_inputs();
    input.set_name(tensor.name);
    input.set_datatype(tensor.datatype);
    input.add_shape(static_cast<std::int64_t>(batch.size()));
    input.add_shape(static_cast<std::int64_t>(width));
    auto& contents = *input.mutable_contents();
    if (tensor.datatype == "BYTES") {
      pad<Strings>(batch, tensor.name, width, "",
                   [&](const std::string& text) { contents.add_bytes_contents(text); });
    } else if (tensor.datatype == "FP32") {
      const std::vector<Row> laid = laid_out(batch, tensor);
      const Batch rows = tensor.aligned_with.empty() ? batch : Batch{laid.begin(), laid.end()};
      pad<Floats>(rows, tensor.name, width, std::numeric_limits<float>::quiet_NaN(),
                  [&](float number) { contents.add_fp32_contents(number); });
    } else {
      pad<Ints>(batch, tensor.name, width, 0,
                [&](std::int32_t number) { contents.add_int_contents(number); });
    }
  }
  return request;
}

std::vector<Row> decode(const Contract& contract, Batch batch,
                        const inference::ModelInferResponse& response) {
  std::vector<Row> answers(batch.size());
  for (const Tensor& tensor : contract.outputs) {
    try {
      const auto [values, width] = output(tensor, batch.size(), response);
      for (std::size_t i = 0; i < answers.size(); ++i) {
        const Row& row = *(batch.begin() + static_cast<std::ptrdiff_t>(i));
        const std::size_t size = tensor.size == any ? size_of(row, candidates) : width;
        if (size > width) throw std::runtime_error("fewer values than candidates");
        answers[i][tensor.name] = slice(values, i * width, size);
      }
    } catch (const std::runtime_error& error) {
      throw std::runtime_error("malformed answer, " + tensor.name + ": " + error.what());
    }
  }
  return answers;
}

}  // namespace seqrec::wire
