// url_fuzz.cc — URLs, queries and segments of paths, as people and clients write them.
// Holds:  parts of a URL are parts of its text, and what is written for a Host header reads as the
//         same host and port; a query that was read can be asked for another page, and only that
//         changes; what the CLI encodes, the daemon decodes to the same.
// Not:    whole requests (http_fuzz.cc), what the parameters mean.
#include <string>

#include "cli/broker_url.h"
#include "cli/query.h"
#include "core/base/utf8.h"
#include "core/net/url.h"
#include "core/wire/query.h"
#include "fuzz/registry.h"

namespace cm {
namespace {

using Kind = wire::QueryValue::Kind;

bool is_part_of(std::string_view part, std::string_view whole) {
  return part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size();
}

void run_url(std::string_view text, ScratchArena& scratch) {
  const auto url = net::url_parse(text);
  if (!url) return;
  CHECK(text.size() <= 2'048 && !url->host.empty());
  CHECK(is_part_of(url->host, text));
  CHECK(url->target.starts_with('/'));
  if (url->scheme == net::Scheme::kUnix) {
    CHECK(url->host.starts_with('/') && url->port == 0);
    return;
  }
  CHECK(url->target == "/" || is_part_of(url->target, text));
  TextBuf again(scratch);
  again.append(url->secure() ? "https://" : "http://");
  net::url_append_host(again, *url);
  again.append(url->target);
  const auto second = net::url_parse(again.view());
  if (again.size() > 2'048) return;
  CHECK(second && second->host == url->host && second->port == url->port);
  CHECK(second->ipv6 == url->ipv6 && second->target == url->target);
  // What needs no change is not talked about on stderr.
  const bool is_ws = url->scheme == net::Scheme::kWs || url->scheme == net::Scheme::kWss;
  if (!is_ws || url->target == "/") return;
  const auto usable = cli::usable_broker_url(text, "--broker");
  if (usable) {
    CHECK(net::url_parse(*usable).has_value());
  } else {
    CHECK(!usable.error().detail.empty());
  }
}

void run_query(std::string_view query, ScratchArena& scratch) {
  const auto limit = wire::query_find(query, "limit", scratch);
  const auto mesh = wire::query_find(query, "mesh", scratch);
  CHECK((limit.kind == Kind::kMalformed) == (mesh.kind == Kind::kMalformed) ||
        limit.kind != mesh.kind);
  if (limit.kind == Kind::kFound) CHECK(utf8_valid(limit.value));
  const auto unknown = wire::query_unknown(query, {"limit", "mesh"}, scratch);
  if (limit.kind == Kind::kMalformed || mesh.kind == Kind::kMalformed || unknown) return;
  TextBuf next(scratch);
  wire::query_with(query, "after", "01ARZ3NDEKTSV4RRFFQ69G5FAV", scratch, next);
  const auto after = wire::query_find(next.view(), "after", scratch);
  CHECK(after.kind == Kind::kFound && after.value == "01ARZ3NDEKTSV4RRFFQ69G5FAV");
  const auto same = wire::query_find(next.view(), "limit", scratch);
  CHECK(same.kind == limit.kind && same.value == limit.value);
  const auto same_mesh = wire::query_find(next.view(), "mesh", scratch);
  CHECK(same_mesh.kind == mesh.kind && same_mesh.value == mesh.value);
}

void run_encoded(std::string_view text, ScratchArena& scratch) {
  if (const auto segment = wire::path_segment(text, scratch)) {
    CHECK(!segment->empty() && utf8_valid(*segment));
    const std::string encoded = cli::percent_encoded(*segment);
    const auto again = wire::path_segment(encoded, scratch);
    CHECK(again && *again == *segment);
  }
  if (text.empty() || !utf8_valid(text) || text.find('\0') != text.npos) return;
  cli::Target target("/v1/x");
  target.add("mesh", text).add("limit", "1");
  const std::string_view query = std::string_view(target.text()).substr(6);
  const auto found = wire::query_find(query, "mesh", scratch);
  CHECK(found.kind == Kind::kFound && found.value == text);
  CHECK(wire::query_find(query, "limit", scratch).value == "1");
}

}  // namespace
}  // namespace cm

CM_FUZZ_TARGET(url) {
  using namespace cm;
  static ScratchArena scratch;
  scratch.reset();
  const std::string_view text = as_text({data, size});
  run_url(text, scratch);
  run_query(text, scratch);
  run_encoded(text, scratch);
  return 0;
}
