#include "conformance/golden.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace conformance {
namespace {

namespace fs = std::filesystem;
using google::protobuf::ListValue;
using Json = google::protobuf::Value;

// protobuf reads JSON as well: that saves a library.
Json read(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(stream), {}};
  Json json;
  const auto status = google::protobuf::util::JsonStringToMessage(text, &json);
  if (!status.ok()) throw std::runtime_error(file.string() + ": " + status.ToString());
  return json;
}

const Json& at(const Json& json, const std::string& key) {
  return json.struct_value().fields().at(key);
}

const std::string& text(const Json& json) { return json.string_value(); }

// A number, or one of those that JSON lacks as a string.
float number(const Json& json) {
  if (json.kind_case() == Json::kNumberValue) return static_cast<float>(json.number_value());
  return std::stof(json.string_value());
}

std::int32_t integer(const Json& json) { return static_cast<std::int32_t>(json.number_value()); }

// A published shape is ["batch", 100], or ["batch", "length"] if any length goes.
std::vector<seqrec::Tensor> tensors(const Json& entries, bool laid_out) {
  std::vector<seqrec::Tensor> made;
  for (const Json& entry : entries.list_value().values()) {
    const double size = at(entry, "shape").list_value().values(1).number_value();
    made.push_back({text(at(entry, "name")), text(at(entry, "datatype")),
                    static_cast<std::size_t>(size)});
    const auto& fields = entry.struct_value().fields();
    const auto follows = fields.find("aligned_with");
    if (!laid_out && follows != fields.end()) made.back().aligned_with = text(follows->second);
  }
  return made;
}

seqrec::Contract contract_of(const fs::path& model, bool laid_out) {
  const Json json = read(model / "contract.json");
  return {text(at(json, "model")), static_cast<std::size_t>(integer(at(json, "max_batch_size"))),
          tensors(at(json, "inputs"), laid_out), tensors(at(json, "outputs"), laid_out)};
}

template <typename Parse>
auto each(const ListValue& data, std::size_t first, std::size_t count, Parse parse) {
  std::vector<std::decay_t<decltype(parse(data.values(0)))>> values;
  values.reserve(count);
  for (std::size_t i = first; i < first + count; ++i) {
    values.push_back(parse(data.values(static_cast<int>(i))));
  }
  return values;
}

std::vector<seqrec::Row> rows_of(const Json& by_name) {
  std::vector<seqrec::Row> rows;
  for (const auto& [name, tensor] : by_name.struct_value().fields()) {
    const ListValue& shape = at(tensor, "shape").list_value();
    const ListValue& data = at(tensor, "data").list_value();
    const auto width = static_cast<std::size_t>(integer(shape.values(1)));
    rows.resize(static_cast<std::size_t>(integer(shape.values(0))));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      seqrec::Value& value = rows[i][name];
      const std::string& datatype = text(at(tensor, "datatype"));
      if (datatype == "BYTES") {
        value = each(data, i * width, width, text);
      } else if (datatype == "FP32") {
        value = each(data, i * width, width, number);
      } else {
        value = each(data, i * width, width, integer);
      }
    }
  }
  return rows;
}

// "10" is newer than "9".
fs::path newest_version(const fs::path& model) {
  int newest = 0;
  for (const auto& entry : fs::directory_iterator(model)) {
    const std::string name = entry.path().filename().string();
    if (fs::exists(entry.path() / "golden.json")) newest = std::max(newest, std::stoi(name));
  }
  return model / std::to_string(newest);
}

std::vector<Golden> requests_of(const fs::path& model) {
  const Json json = read(newest_version(model) / "golden.json");
  std::vector<Golden> requests;
  for (const Json& entry : at(json, "requests").list_value().values()) {
    const std::string name = model.filename().string() + ", request " +
                             std::to_string(requests.size()) + " (" + text(at(entry, "case")) + ")";
    requests.push_back({name, at(entry, "atol").number_value(), at(entry, "rtol").number_value(),
                        rows_of(at(entry, "inputs")), rows_of(at(entry, "outputs"))});
  }
  return requests;
}

}  // namespace

std::vector<Served> read_repository(const std::string& folder, bool laid_out) {
  std::vector<fs::path> models;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (fs::exists(entry.path() / "contract.json")) models.push_back(entry.path());
  }
  std::sort(models.begin(), models.end());
  std::vector<Served> served;
  for (const fs::path& model : models) {
    served.push_back({contract_of(model, laid_out), requests_of(model)});
  }
  return served;
}

}  // namespace conformance
