#include "seqrec/rows.h"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string_view>

namespace seqrec {
namespace {

constexpr std::array<const char*, std::variant_size_v<Value>> datatypes{"BYTES", "FP32", "INT32"};

std::size_t size_of(const Value& value) {
  return std::visit([](const auto& values) { return values.size(); }, value);
}

// How many continuation bytes follow a lead byte, and where the first of them lies: that leaves out
// overlong forms, surrogates and what is beyond Unicode (RFC 3629, section 4).
struct Sequence {
  std::size_t more;
  unsigned char low, high;
};

Sequence sequence_of(unsigned char lead) {
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {1, 0x80, 0xBF};
  if (lead < 0xF0) {
    return {2, static_cast<unsigned char>(lead == 0xE0 ? 0xA0 : 0x80),
            static_cast<unsigned char>(lead == 0xED ? 0x9F : 0xBF)};
  }
  if (lead < 0xF5) {
    return {3, static_cast<unsigned char>(lead == 0xF0 ? 0x90 : 0x80),
            static_cast<unsigned char>(lead == 0xF4 ? 0x8F : 0xBF)};
  }
  return {0, 0, 0};
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) continue;
    auto [more, low, high] = sequence_of(lead);
    if (more == 0 || more >= text.size() - i) return false;
    for (; more > 0; --more, low = 0x80, high = 0xBF) {
      const auto byte = static_cast<unsigned char>(text[++i]);
      if (byte < low || byte > high) return false;
    }
  }
  return true;
}

}  // namespace

std::size_t size_of(const Row& row, const std::string& input) {
  const auto found = row.find(input);
  return found == row.end() ? 0 : size_of(found->second);
}

Floats laid_out(const Row& row, const Tensor& tensor) {
  Floats laid(tensor.size, std::numeric_limits<float>::quiet_NaN());
  const auto events = row.find(tensor.aligned_with);
  const auto given = row.find(tensor.name);
  if (events == row.end() || given == row.end()) return laid;
  const auto& history = std::get<Strings>(events->second);
  const auto& values = std::get<Floats>(given->second);
  auto place = laid.rbegin();
  for (std::size_t i = history.size(); i > 0 && place != laid.rend(); --i) {
    // An empty id is padding. The server cuts an id at NUL, which may leave an empty one.
    if (history[i - 1].empty() || history[i - 1].front() == '\0') continue;
    if (i <= values.size()) *place = values[i - 1];
    ++place;
  }
  return laid;
}

void check(const Contract& contract, const Row& row) {
  for (const auto& [name, value] : row) {
    const auto tensor =
        std::find_if(contract.inputs.begin(), contract.inputs.end(),
                     [&name = name](const Tensor& input) { return input.name == name; });
    if (tensor == contract.inputs.end()) {
      throw std::invalid_argument("no input " + name + "; the model takes " +
                                  names(contract.inputs));
    }
    if (tensor->datatype != datatypes[value.index()]) {
      throw std::invalid_argument(name + ": takes " + tensor->datatype + ", found " +
                                  datatypes[value.index()]);
    }
    const std::size_t size = size_of(value);
    const bool any_length = tensor->size == any || !tensor->aligned_with.empty();
    if (!any_length && size != 0 && size != tensor->size) {
      throw std::invalid_argument(name + ": takes " + std::to_string(tensor->size) +
                                  " values or none, found " + std::to_string(size));
    }
    if (const auto* texts = std::get_if<Strings>(&value)) {
      const auto bad = std::find_if_not(texts->begin(), texts->end(), is_utf8);
      if (bad != texts->end()) {
        throw std::invalid_argument(name + ": takes UTF-8, found other bytes in value " +
                                    std::to_string(bad - texts->begin()));
      }
    }
  }
}

std::string names(const std::vector<Tensor>& tensors) {
  std::string listed;
  for (const Tensor& tensor : tensors) listed += (listed.empty() ? "" : ", ") + tensor.name;
  return listed;
}

}  // namespace seqrec
