// A channel to the server, with retries and errors. Internal to the library.
#pragma once

#include <grpcpp/grpcpp.h>
#include <inference.grpc.pb.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "seqrec/client.h"

namespace seqrec {

using Deadline = std::chrono::system_clock::time_point;

class Client::Connection {
 public:
  Connection(const std::string& address, const Options& options);

  Deadline deadline(Timeout timeout) const;

  /// Tries again if the server is away for a moment, and only then: whatever else fails would
  /// fail again. Throws Error.
  void retry(const std::string& model, Deadline deadline,
             const std::function<grpc::Status(grpc::ClientContext&)>& attempt) const;

  Error failure(grpc::StatusCode code, const std::string& model, const std::string& message) const;

  inference::GRPCInferenceService::Stub& server() const { return *server_; }

 private:
  std::string address_;
  std::chrono::milliseconds timeout_;
  std::unique_ptr<inference::GRPCInferenceService::Stub> server_;
};

}  // namespace seqrec
