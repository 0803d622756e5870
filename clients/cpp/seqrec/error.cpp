#include "seqrec/error.h"

#include <array>
#include <utility>

namespace seqrec {
namespace {

// gRPC C++ has no names for its codes.
std::string name(grpc::StatusCode code) {
  static constexpr std::array names{
      "OK",
      "CANCELLED",
      "UNKNOWN",
      "INVALID_ARGUMENT",
      "DEADLINE_EXCEEDED",
      "NOT_FOUND",
      "ALREADY_EXISTS",
      "PERMISSION_DENIED",
      "RESOURCE_EXHAUSTED",
      "FAILED_PRECONDITION",
      "ABORTED",
      "OUT_OF_RANGE",
      "UNIMPLEMENTED",
      "INTERNAL",
      "UNAVAILABLE",
      "DATA_LOSS",
      "UNAUTHENTICATED",
  };
  const auto number = static_cast<std::size_t>(code);
  return number < names.size() ? names[number] : "status " + std::to_string(code);
}

}  // namespace

Error::Error(grpc::StatusCode code, std::string model, std::string address, std::string message)
    : std::runtime_error((model.empty() ? "" : model + " at ") + address + ": " + name(code) +
                         ": " + message),
      code(code),
      model(std::move(model)),
      address(std::move(address)),
      message(std::move(message)) {}

}  // namespace seqrec
