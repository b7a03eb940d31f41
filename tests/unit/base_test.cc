// base_test.cc — handles, ids, times, arenas, buffers, errors, the log, metrics and limits.
// Not:    core/base/check.h's crash report beyond its being one, Env.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/base/alloc_count.h"
#include "core/base/arena.h"
#include "core/base/errors.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/base/metrics.h"
#include "core/base/result.h"
#include "core/base/table.h"
#include "core/base/time_text.h"
#include "core/base/ulid.h"
#include "core/wire/json_tape.h"

namespace cm {
namespace {

using std::string_view_literals::operator""sv;

// --- core/base/table.h ---

enum Col { kName, kNumber };
using Rows = Table<struct RowTag, std::string, int>;

TEST(Table, a_stale_handle_is_detected) {
  Rows rows(4);
  const Rows::Handle first = rows.insert();
  rows.get<kName>(first) = "first";
  rows.erase(first);
  EXPECT_FALSE(rows.alive(first));
  const Rows::Handle second = rows.insert();
  EXPECT_EQ(second.slot, first.slot);
  EXPECT_FALSE(rows.alive(first));
  EXPECT_TRUE(rows.alive(second));
  EXPECT_EQ(rows.get<kName>(second), "");  // nothing of the row before
}

TEST(Table, handles_that_name_nothing_are_not_alive) {
  Rows rows(4);
  EXPECT_FALSE(rows.alive({}));
  EXPECT_FALSE(Rows::Handle{});
  const Rows::Handle row = rows.insert();
  EXPECT_FALSE(rows.alive({row.slot, row.gen + 1}));
  EXPECT_FALSE(rows.alive({row.slot + 1, row.gen}));
  EXPECT_FALSE(rows.alive({0xffffffffu, row.gen}));
  EXPECT_EQ(Rows::Handle::from_bits(row.bits()), row);
}

TEST(Table, freed_slots_are_reused_in_the_order_of_freeing) {
  Rows rows(3);
  const Rows::Handle all[] = {rows.insert(), rows.insert(), rows.insert()};
  rows.erase(all[1]);
  rows.erase(all[2]);
  rows.erase(all[0]);
  EXPECT_EQ(rows.insert().slot, all[1].slot);
  EXPECT_EQ(rows.insert().slot, all[2].slot);
  EXPECT_EQ(rows.insert().slot, all[0].slot);
  EXPECT_TRUE(rows.verify());
}

TEST(Table, a_full_table_answers_an_empty_handle) {
  Rows rows(2);
  const Rows::Handle first = rows.insert();
  EXPECT_TRUE(rows.insert());
  EXPECT_TRUE(rows.full());
  EXPECT_FALSE(rows.insert());
  rows.erase(first);
  EXPECT_FALSE(rows.full());
  EXPECT_TRUE(rows.insert());
  EXPECT_EQ(rows.count(), 2u);
  EXPECT_FALSE(Rows(0).insert());
}

TEST(Table, the_visitor_may_erase) {
  Rows rows(10);
  for (int index = 0; index < 10; ++index) rows.get<kNumber>(rows.insert()) = index;
  rows.each([&](Rows::Handle row) {
    if (rows.get<kNumber>(row) % 2 == 0) rows.erase(row);
  });
  EXPECT_EQ(rows.count(), 5u);
  EXPECT_TRUE(rows.verify());
  rows.clear();
  EXPECT_EQ(rows.count(), 0u);
  EXPECT_TRUE(rows.verify());
}

TEST(TableDeathTest, using_a_stale_handle_is_a_broken_invariant) {
  Rows rows(1);
  const Rows::Handle row = rows.insert();
  rows.erase(row);
  EXPECT_DEATH(rows.get<kNumber>(row) = 1, "broken invariant: alive");
  EXPECT_DEATH(rows.erase(row), "broken invariant: alive");
}

// --- core/base/ulid.h ---

void fill_ones(void* to, std::size_t size) { std::memset(to, 0xff, size); }
void fill_counting(void* to, std::size_t size) {
  static std::uint8_t next = 0;
  std::memset(to, next++, size);
}

TEST(Ulids, the_text_goes_round_and_sorts_as_the_bytes) {
  UlidGenerator generator(fill_counting);
  std::vector<std::string> texts;
  for (std::uint64_t ms = 1; ms < 2'000'000'000'000; ms = ms * 3 + 1) {
    const Ulid id = generator.next(ms);
    EXPECT_EQ(id.time_ms(), ms);
    const UlidText text = ulid_text(id);
    ASSERT_TRUE(ulid_parse(view(text)));
    EXPECT_EQ(*ulid_parse(view(text)), id);
    texts.emplace_back(view(text));
  }
  EXPECT_TRUE(std::is_sorted(texts.begin(), texts.end()));
}

TEST(Ulids, lower_case_is_read_and_everything_else_refused) {
  EXPECT_EQ(ulid_parse("01arz3ndektsv4rrffq69g5fav"), ulid_parse("01ARZ3NDEKTSV4RRFFQ69G5FAV"));
  EXPECT_TRUE(ulid_parse("7ZZZZZZZZZZZZZZZZZZZZZZZZZ"));
  for (const std::string_view text :
       {""sv, "01ARZ3NDEKTSV4RRFFQ69G5FA"sv, "01ARZ3NDEKTSV4RRFFQ69G5FAVV"sv,
        "81ARZ3NDEKTSV4RRFFQ69G5FAV"sv, "01ARZ3NDEKTSV4RRFFQ69G5FAI"sv,
        "01ARZ3NDEKTSV4RRFFQ69G5FAL"sv, "01ARZ3NDEKTSV4RRFFQ69G5FAO"sv,
        "01ARZ3NDEKTSV4RRFFQ69G5FAU"sv, "01ARZ3NDEKTSV4RRFFQ69G5F V"sv,
        "01ARZ3NDEKTSV4RRFFQ69G5F\0V"sv}) {
    EXPECT_FALSE(ulid_parse(text)) << text;
  }
}

TEST(Ulids, ids_increase_within_a_millisecond_and_when_the_clock_steps_back) {
  UlidGenerator generator(fill_counting);
  Ulid last;
  for (const std::uint64_t ms : {1000u, 1000u, 1000u, 500u, 0u, 999u, 1000u, 1001u, 1u, 1002u}) {
    const Ulid id = generator.next(ms);
    EXPECT_GT(id, last);
    last = id;
  }
}

TEST(Ulids, a_full_random_part_carries_into_the_time) {
  UlidGenerator generator(fill_ones);
  const Ulid first = generator.next(1000);
  const Ulid second = generator.next(1000);
  EXPECT_GT(second, first);
  EXPECT_EQ(second.time_ms(), 1001u);
}

TEST(Ulids, a_generator_starts_after_what_the_store_holds) {
  UlidGenerator generator(fill_counting);
  const Ulid stored = *ulid_parse("7ARZ3NDEKTSV4RRFFQ69G5FAVZ");
  generator.start_after(stored);
  generator.start_after(Ulid{});  // an older one changes nothing
  EXPECT_GT(generator.next(1000), stored);
}

// --- core/base/time_text.h ---

TEST(TimeText, times_go_round) {
  for (const std::uint64_t ms :
       {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{951782399999},  // 2000-02-28
        std::uint64_t{951782400000}, std::uint64_t{1893456000123},
        std::uint64_t{253402300799999}}) {
    EXPECT_EQ(iso_parse(view(iso_text(ms))), ms);
  }
  EXPECT_EQ(view(iso_text(951782400000)), "2000-02-29T00:00:00.000Z");
  EXPECT_EQ(view(iso_text(~std::uint64_t{0})), "9999-12-31T23:59:59.999Z");
  EXPECT_EQ(iso_parse("2030-01-01T00:00:00Z"), 1893456000000u);
}

TEST(TimeText, nothing_else_is_accepted) {
  for (const std::string_view text :
       {""sv, "2026-01-02"sv, "2026-01-02T03:04:05"sv, "2026-01-02T03:04:05.678"sv,
        "2026-01-02T03:04:05.678z"sv, "2026-01-02 03:04:05.678Z"sv, "2026-01-02T03:04:05,678Z"sv,
        "2026-13-02T03:04:05.678Z"sv, "2026-02-29T03:04:05.678Z"sv, "2026-00-02T03:04:05.678Z"sv,
        "2026-01-02T24:04:05.678Z"sv, "2026-01-02T03:60:05.678Z"sv, "2026-01-02T03:04:60.678Z"sv,
        "1969-12-31T23:59:59.999Z"sv, "2026-01-02T03:04:05.67Z"sv, "2026-01-02T03:04:05.6789Z"sv,
        "+026-01-02T03:04:05.678Z"sv, "2026-01-02T03:04:05+00:0"sv, "2026-01-02T 3:04:05.678Z"sv}) {
    EXPECT_FALSE(iso_parse(text)) << text;
  }
}

// --- core/base/arena.h ---

TEST(Scratch, allocations_are_aligned_and_apart) {
  ScratchArena arena(4096);
  std::uint8_t* last = nullptr;
  for (const std::size_t align : {1u, 2u, 4u, 8u, 16u}) {
    std::uint8_t* at = arena.allocate(3, align);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at) % align, 0u);
    EXPECT_TRUE(last == nullptr || at >= last + 3);
    last = at;
  }
  EXPECT_EQ(arena.copy("text"sv), "text");
  EXPECT_TRUE(arena.copy(""sv).empty());
}

TEST(Scratch, a_steady_load_does_not_touch_the_heap) {
  ScratchArena arena(4096, 1 << 20);
  const auto iteration = [&] {
    TextBuf text(arena);
    for (int index = 0; index < 2000; ++index) text.append("0123456789");
    arena.allocate(100'000);
    arena.reset();
  };
  iteration();
  const std::uint64_t before = allocation_count();
  for (int round = 0; round < 10; ++round) iteration();
  EXPECT_EQ(allocation_count(), before);
}

TEST(Scratch, an_oversized_first_block_is_not_kept_beyond_the_bound) {
  ScratchArena arena(4096, 8192);
  const std::uint8_t* big = arena.allocate(1 << 20);
  arena.reset();
  EXPECT_EQ(arena.used_bytes(), 0u);
  // The next small allocations come from blocks of the usual size: three of them fill more than
  // one, which they would not if the big block were still there.
  const std::uint8_t* first = arena.allocate(3000);
  const std::uint8_t* second = arena.allocate(3000);
  const bool contiguous = second == first + 3000;
  EXPECT_FALSE(contiguous);
  (void)big;
}

TEST(TextBuffers, they_grow_over_blocks_and_keep_their_text) {
  ScratchArena arena(4096);
  TextBuf text(arena, 16);
  std::string expected;
  for (int index = 0; index < 5000; ++index) {
    text.append_number(-index);
    expected += std::to_string(-index);
    if (index % 7 == 0) arena.allocate(5);  // something else behind it: it has to move
  }
  text.append_unsigned(~std::uint64_t{0});
  text.append('x');
  expected += "18446744073709551615x";
  EXPECT_EQ(text.view(), expected);
  text.truncate(3);
  EXPECT_EQ(text.view(), expected.substr(0, 3));
}

TEST(Buffers, an_empty_buffer_owns_no_memory) {
  BufferPool pool;
  PooledBuffer buffer(pool);
  EXPECT_EQ(pool.lent_bytes(), 0u);
  buffer.append(as_bytes("hello"));
  EXPECT_EQ(pool.lent_bytes(), BufferPool::kSmallest);
  buffer.consume(2);
  EXPECT_EQ(as_text(buffer.bytes()), "llo");
  buffer.consume(3);
  EXPECT_EQ(pool.lent_bytes(), 0u);
  buffer.append({});
  EXPECT_EQ(pool.lent_bytes(), 0u);
}

TEST(Buffers, bytes_survive_growing_shifting_and_moving) {
  BufferPool pool;
  PooledBuffer buffer(pool);
  std::string expected;
  for (int index = 0; index < 3000; ++index) {
    const std::string part = std::to_string(index) + ",";
    buffer.append(as_bytes(part));
    expected += part;
    if (index % 3 == 0 && expected.size() >= 4) {
      buffer.consume(4);
      expected.erase(0, 4);
    }
    if (expected.empty()) continue;
    ASSERT_EQ(buffer.size(), expected.size());
  }
  EXPECT_EQ(as_text(buffer.bytes()), expected);
  PooledBuffer moved(std::move(buffer));
  EXPECT_EQ(as_text(moved.bytes()), expected);
  PooledBuffer other(pool);
  other.append(as_bytes("x"));
  other = std::move(moved);
  EXPECT_EQ(as_text(other.bytes()), expected);
  other.release();
  EXPECT_EQ(pool.lent_bytes(), 0u);
}

TEST(Buffers, the_pool_lends_powers_of_two) {
  BufferPool pool(0);
  const MutableBytes block = pool.lend(5000);
  EXPECT_EQ(block.size(), 8192u);
  pool.give_back(block);
  const MutableBytes largest = pool.lend(32u << 20);
  EXPECT_EQ(largest.size(), 32u << 20);
  pool.give_back(largest);
  EXPECT_EQ(pool.lent_bytes(), 0u);
}

// --- core/base/errors.h, core/base/result.h ---

TEST(Errors, every_row_has_a_sentence_a_remedy_and_a_wire_code_of_its_own) {
  std::set<std::string_view> codes;
  for (std::size_t index = 0; index < static_cast<std::size_t>(Err::kCount); ++index) {
    const auto code = static_cast<Err>(index);
    const ErrInfo& info = row_of(code);
    EXPECT_FALSE(info.meaning.empty()) << info.wire_code;
    EXPECT_FALSE(info.remedy.empty()) << info.wire_code;
    EXPECT_FALSE(info.meaning.ends_with('.')) << info.wire_code;
    EXPECT_TRUE(codes.insert(info.wire_code).second) << info.wire_code;
    EXPECT_EQ(err_of_wire_code(info.wire_code), code);
    for (const char c : info.wire_code) {
      EXPECT_TRUE((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_') << info.wire_code;
    }
    EXPECT_EQ(info.exit_code == 0, code == Err::kOk);
    EXPECT_TRUE(info.http_status >= 200 && info.http_status < 600);
  }
  EXPECT_EQ(err_of_wire_code("no such code"), Err::kInternal);
}

TEST(Results, they_hold_a_value_or_an_error) {
  const Result<int> good = 7;
  const Result<int> bad = fail(Err::kFull, "why");
  EXPECT_TRUE(good && *good == 7 && good.code() == Err::kOk);
  EXPECT_TRUE(!bad && bad.code() == Err::kFull && bad.error().detail == "why");
  EXPECT_TRUE(Status{} && !Status(Err::kNotFound));
}

TEST(ResultDeathTest, the_value_of_an_error_is_a_broken_invariant) {
  const Result<int> bad = Err::kFull;
  EXPECT_DEATH((void)*bad, "broken invariant");
  EXPECT_DEATH((void)Status{}.error(), "broken invariant");
}

// --- core/base/log.h ---

struct Lines {
  std::vector<std::string> all;
  static void sink(void* context, std::string_view line) {
    static_cast<Lines*>(context)->all.emplace_back(line);
  }
  static std::uint64_t clock(void*) { return 1893456000123; }
};

class Logging : public testing::Test {
 protected:
  std::string field(std::string_view key) {
    EXPECT_FALSE(lines_.all.empty());
    wire::JsonTape tape;
    const std::string& line = lines_.all.back();
    EXPECT_EQ(line.back(), '\n');
    EXPECT_EQ(line.find('\n'), line.size() - 1);
    const Status status = parser_.parse(line, scratch_, tape);
    EXPECT_TRUE(status) << line;
    if (!status || tape.find(key) == nullptr) return "(absent)";
    return std::string(tape.find(key)->text);
  }

  Lines lines_;
  Log log_{Lines::sink, Lines::clock, &lines_};
  wire::JsonParser parser_;
  ScratchArena scratch_;
};

TEST_F(Logging, an_event_is_one_line_of_json) {
  log_.info("started", {{"port", 7900}, {"tls", false}, {"path", "/x \"y\"\n\t\x1b\x7f é"}});
  EXPECT_EQ(field("ts"), "2030-01-01T00:00:00.123Z");
  EXPECT_EQ(field("level"), "info");
  EXPECT_EQ(field("event"), "started");
  EXPECT_EQ(field("path"), "/x \"y\"\n\t\x1b\x7f é");
  EXPECT_NE(lines_.all[0].find("\"port\":7900,\"tls\":false"), std::string::npos);
}

TEST_F(Logging, hostile_bytes_leave_the_line_valid) {
  for (const std::string_view bytes :
       {"\xff"sv, "a\xc3"sv, "\xed\xa0\x80"sv, "\xc0\xaf"sv, "\xf4\x90\x80\x80"sv, "\xe2\x82"sv,
        "\xe0\x80\x80"sv, "\xf0\x8f\xbf\xbf"sv, "\0"sv}) {
    log_.warn("peer", {{"name", bytes}});
    EXPECT_EQ(field("event"), "peer");
    EXPECT_NE(field("name"), "(absent)");
  }
  log_.warn("peer", {{"name",
                      "a\xff"
                      "b"}});
  EXPECT_EQ(field("name"),
            "a\xef\xbf\xbd"
            "b");
}

TEST_F(Logging, what_does_not_fit_is_left_out_whole) {
  const std::string long_text(5000, 'x');
  log_.info("event", {{"long", long_text}, {"short", "y"}});
  EXPECT_EQ(field("long"), "(absent)");
  EXPECT_EQ(field("short"), "y");
  for (std::size_t size = 3900; size < 4096; ++size) {
    log_.info("event", {{"k", std::string(size, '\n')}, {"n", 1}, {"k2", std::string(size, 'a')}});
    EXPECT_LE(lines_.all.back().size(), 4096u);
    EXPECT_EQ(field("event"), "event");
  }
}

TEST_F(Logging, secrets_are_not_printed) {
  const std::string hex128(128, 'a');
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"token", "t0psecret"},
           {"admin_token", "t0psecret"},
           {"secret_key", "t0psecret"},
           {"Authorization", "t0psecret"},
           {"passphrase", "t0psecret"},
           {"nonce", "t0psecret"},
           {"signature", "t0psecret"},
           {"body", "t0psecret"},
           {"message", "t0psecret"},
           {"invite_token", "t0psecret"},
           {"mesh_root_key", "t0psecret"},
           {"dbPassword", "t0psecret"},
           {"detail", hex128},
           {"detail", "key=" + hex128 + "."},
           {"detail", "Authorization: Bearer t0psecret"},
           {"detail", "bearer t0psecret"},
           {"detail", "ClaudeMesh-Session t0psecret"}}) {
    log_.error("e", {{key, value}});
    EXPECT_EQ(lines_.all.back().find("t0psecret"), std::string::npos) << key;
    EXPECT_EQ(lines_.all.back().find(hex128), std::string::npos) << key;
    EXPECT_EQ(field(key), "***");
  }
  EXPECT_FALSE(log_redacts("peer", std::string(64, 'a')));  // a public key
  EXPECT_FALSE(log_redacts("admin_token_file", "/etc/x"));
  EXPECT_FALSE(log_redacts("detail", std::string(127, 'a')));
}

TEST_F(Logging, lines_below_the_level_are_not_written_and_no_line_touches_the_heap) {
  log_.debug("quiet");
  EXPECT_TRUE(lines_.all.empty());
  static std::size_t bytes;
  const Log counting([](void*, std::string_view line) { bytes += line.size(); }, Lines::clock,
                     nullptr, LogLevel::kDebug);
  const std::uint64_t before = allocation_count();
  counting.debug("event", {{"a", "b"}, {"n", 1}});
  EXPECT_EQ(allocation_count(), before);
  EXPECT_GT(bytes, 0u);
}

// --- core/base/metrics.h ---

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return lines;
}

TEST(MetricsTable, every_metric_has_a_name_and_help) {
  std::set<std::string> series;
  for (std::size_t index = 0; index < static_cast<std::size_t>(Metric::kCount); ++index) {
    const MetricInfo& info = info_of(static_cast<Metric>(index));
    EXPECT_FALSE(info.help.empty()) << info.name;
    EXPECT_EQ(info.help.find_first_of("\n\\"), std::string_view::npos) << info.name;
    EXPECT_EQ(info.name.ends_with("_total"), info.kind == MetricKind::kCounter) << info.name;
    for (const char c : info.name) {
      EXPECT_TRUE((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_') << info.name;
    }
    EXPECT_FALSE(info.name.front() >= '0' && info.name.front() <= '9') << info.name;
    EXPECT_TRUE(series.insert(std::string(info.name) + "{" + std::string(info.labels)).second)
        << info.name;
  }
}

TEST(MetricsTable, the_exposition_says_help_and_type_once_a_name_before_its_samples) {
  ScratchArena arena;
  for (const MetricRole role : {MetricRole::kBroker, MetricRole::kDaemon}) {
    Metrics metrics;
    metrics.add(Metric::kIterations, 3);
    TextBuf out(arena);
    metrics.expose(role, out);
    std::map<std::string, int> help, type;
    std::string current;
    for (const std::string& line : lines_of(out.view())) {
      if (line.starts_with("# HELP ")) {
        current = line.substr(7, line.find(' ', 7) - 7);
        ++help[current];
      } else if (line.starts_with("# TYPE ")) {
        EXPECT_EQ(line.substr(7, line.find(' ', 7) - 7), current);
        ++type[current];
      } else {
        EXPECT_EQ(line.substr(0, line.find_first_of("{ ")), current) << line;
      }
    }
    EXPECT_EQ(help, type);
    for (const auto& [name, count] : help) EXPECT_EQ(count, 1) << name;
    EXPECT_NE(out.view().find("\ncm_loop_iterations_total 3\n"), std::string_view::npos);
    const bool broker = out.view().find("broker_queue_depth") != std::string_view::npos;
    EXPECT_EQ(broker, role == MetricRole::kBroker);
  }
}

// --- core/base/limits.h ---

TEST(LimitsBill, the_defaults_fit_the_memory_budget) {
  const Limits limits;
  for (const MemoryBill& bill : {broker_bill(limits), daemon_bill(limits)}) {
    EXPECT_GT(bill.count, 0u);
    EXPECT_LE(bill.total(), limits.memory_budget_bytes);
    std::uint64_t sum = 0;
    for (std::size_t index = 0; index < bill.count; ++index) {
      EXPECT_FALSE(bill.lines[index].what.empty());
      sum += bill.lines[index].bytes;
    }
    EXPECT_EQ(sum, bill.total());
  }
}

TEST(LimitsBill, the_largest_values_do_not_overflow) {
  Limits limits;
  limits.broker_connections_max = limits.presences_max = limits.mailboxes_max = ~0u;
  EXPECT_GT(broker_bill(limits).total(), std::uint64_t{1} << 40);
  limits.http_body_bytes_max = limits.ipc_requests_max = ~0u;
  EXPECT_GT(daemon_bill(limits).total(), std::uint64_t{1} << 60);
}

TEST(LimitsBill, the_store_keeps_a_reserve) {
  EXPECT_EQ(store_reserve_bytes(0), 64u << 20);
  EXPECT_EQ(store_reserve_bytes(std::uint64_t{8} << 30), (std::uint64_t{8} << 30) / 10);
}

}  // namespace
}  // namespace cm
