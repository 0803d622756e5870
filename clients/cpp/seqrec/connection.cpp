#include "seqrec/connection.h"

#include <fstream>
#include <iterator>
#include <random>
#include <string_view>
#include <thread>

namespace seqrec {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr int tries = 3;
constexpr milliseconds first_pause(100);  // at most; each further one may be twice as long
constexpr milliseconds longest_reconnect(1000);

bool is_local(std::string_view address) {
  for (const std::string_view prefix : {"127.", "localhost:", "[::1]"}) {
    if (address.substr(0, prefix.size()) == prefix) return true;
  }
  return false;
}

grpc::ChannelArguments arguments(std::string_view address) {
  grpc::ChannelArguments made;
  made.SetMaxReceiveMessageSize(-1);
  // By default a server that was away is looked for only every two minutes.
  made.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, static_cast<int>(first_pause.count()));
  made.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, static_cast<int>(longest_reconnect.count()));
  if (is_local(address)) made.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return made;
}

std::string read(const std::string& file) {
  if (file.empty()) return "";
  std::ifstream stream(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (text.empty()) throw std::runtime_error(file + " cannot be read; TLS needs PEM files");
  return text;
}

std::shared_ptr<grpc::ChannelCredentials> credentials(const std::optional<Tls>& tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  if (tls->cert.empty() != tls->key.empty()) {
    throw std::runtime_error("a certificate and its key belong together; give both or neither");
  }
  return grpc::SslCredentials({read(tls->ca), read(tls->key), read(tls->cert)});
}

// From half of the longest pause to all of it, so that many clients do not come back at once.
milliseconds random_pause(milliseconds longest) {
  thread_local std::minstd_rand random{std::random_device{}()};
  std::uniform_int_distribution<milliseconds::rep> chosen(longest.count() / 2, longest.count());
  return milliseconds(chosen(random));
}

}  // namespace

Client::Connection::Connection(const std::string& address, const Options& options)
    : address_(address), timeout_(options.timeout) {
  try {
    server_ = inference::GRPCInferenceService::NewStub(
        grpc::CreateCustomChannel(address, credentials(options.tls), arguments(address)));
  } catch (const std::runtime_error& error) {
    throw failure(grpc::StatusCode::INVALID_ARGUMENT, "", error.what());
  }
}

Deadline Client::Connection::deadline(Timeout timeout) const {
  return system_clock::now() + timeout.value_or(timeout_);
}

void Client::Connection::retry(
    const std::string& model, Deadline deadline,
    const std::function<grpc::Status(grpc::ClientContext&)>& attempt) const {
  milliseconds longest = first_pause;
  for (int made = 1;; ++made, longest *= 2) {
    grpc::ClientContext context;
    context.set_deadline(deadline);
    const grpc::Status status = attempt(context);
    if (status.ok()) return;
    const milliseconds pause = random_pause(longest);
    if (status.error_code() != grpc::StatusCode::UNAVAILABLE || made == tries ||
        system_clock::now() + pause >= deadline) {
      throw failure(status.error_code(), model, status.error_message());
    }
    std::this_thread::sleep_for(pause);
  }
}

Error Client::Connection::failure(grpc::StatusCode code, const std::string& model,
                                  const std::string& message) const {
  return Error(code, model, address_, message);
}

}  // namespace seqrec
