// doctor.cc — doctor: the findings for a person and for a script.
// Holds:  exit status 1 if anything fails; warnings alone are 0.
// Source: spec/cli.md §17.
// Not:    the checks (cli/doctor.cc).
#include <algorithm>

#include "cli/doctor.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "core/base/arena.h"
#include "core/wire/json_writer.h"

namespace cm::cli {
namespace {

const char* word_of(Health health) {
  switch (health) {
    case Health::kWell: return "ok";
    case Health::kWarning: return "warning";
    case Health::kFailure: return "failure";
  }
  return "failure";
}

const char* mark_of(Health health) {
  switch (health) {
    case Health::kWell: return "✔";
    case Health::kWarning: return "!";
    case Health::kFailure: return "✘";
  }
  return "✘";
}

std::size_t count(const std::vector<Finding>& findings, Health health) {
  return static_cast<std::size_t>(
      std::count_if(findings.begin(), findings.end(),
                    [health](const Finding& finding) { return finding.health == health; }));
}

void print_findings_json(const std::vector<Finding>& findings) {
  ScratchArena scratch;
  TextBuf text(scratch, 4096);
  wire::JsonWriter json(text);
  const std::size_t failures = count(findings, Health::kFailure);
  json.begin_object().field("ok", failures == 0).field("failures", failures);
  json.field("warnings", count(findings, Health::kWarning)).key("checks").begin_array();
  for (const Finding& finding : findings) {
    json.begin_object().field("check", finding.check).field("status", word_of(finding.health));
    json.field("detail", finding.detail).nullable_field("remedy", finding.remedy).end_object();
  }
  json.end_array().end_object();
  print_json(text.view());
}

}  // namespace

int run_doctor() {
  const std::vector<Finding> findings = examine();
  const std::size_t failures = count(findings, Health::kFailure);
  if (output().json) {
    print_findings_json(findings);
    return failures == 0 ? 0 : 1;
  }
  for (const Finding& finding : findings) {
    if (output().quiet && finding.health == Health::kWell) continue;
    print("  " + std::string(mark_of(finding.health)) + " " + bold(finding.check) + ": " +
          finding.detail);
    if (!finding.remedy.empty()) print("      " + dim(finding.remedy));
  }
  const std::size_t warnings = count(findings, Health::kWarning);
  say(std::to_string(failures) + " failures, " + std::to_string(warnings) + " warnings in " +
      std::to_string(findings.size()) + " checks");
  return failures == 0 ? 0 : 1;
}

}  // namespace cm::cli
