// What every call throws.
#pragma once

#include <grpcpp/support/status_code_enum.h>

#include <stdexcept>
#include <string>

namespace seqrec {

/// A value that the model does not take is INVALID_ARGUMENT, whoever finds it, and a malformed
/// answer is INTERNAL. what() has all of it in one line.
class Error : public std::runtime_error {
 public:
  Error(grpc::StatusCode code, std::string model, std::string address, std::string message);

  grpc::StatusCode code;
  std::string model;  // empty if the connection cannot be set up
  std::string address;
  std::string message;
};

}  // namespace seqrec
