// plugin_load_test.cc — which files and folders are refused, and with which sentence.
// Not:    what loaded plugins do (plugin_host_test.cc).
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <fstream>

#include "tests/unit/plugin_host_fixture.h"

namespace cm::plugins {
namespace {

class PluginLoad : public PluginRig {
 protected:
  std::string refusal() {
    load();
    EXPECT_EQ(host_->plugins().size(), 1u);
    if (host_->plugins().empty()) return {};
    const PluginInfo& info = host_->plugins().front();
    EXPECT_FALSE(info.loaded);
    EXPECT_NE(log_text_.find("plugin_refused"), std::string::npos);
    return info.refusal;
  }
  std::string refusal_of_bad(const std::string& fault) {
    install_bad("bad_" + fault);
    return refusal();
  }
};

TEST_F(PluginLoad, a_good_file_is_listed_with_its_hash_and_table) {
  const std::string path = install("transports/loopback.so", "loopback.so");
  load();
  ASSERT_EQ(host_->plugins().size(), 1u);
  const PluginInfo& info = host_->plugins().front();
  EXPECT_TRUE(info.loaded) << info.refusal;
  EXPECT_EQ(info.path, path);
  EXPECT_EQ(info.kind, "loopback");
  EXPECT_EQ(info.version, "1.0.0");
  EXPECT_EQ(info.abi_major, 1u);
  EXPECT_EQ(info.abi_minor, 0u);
  EXPECT_EQ(info.max_message_bytes, 1u << 20);
  EXPECT_TRUE(info.capabilities & CM_CAP_P2P);
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  unsigned char digest[crypto_hash_sha256_BYTES];
  crypto_hash_sha256(digest, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  char text[2 * sizeof digest + 1];
  EXPECT_EQ(info.sha256, sodium_bin2hex(text, sizeof text, digest, sizeof digest));
  EXPECT_TRUE(host_->find_plugin("loopback"));
  EXPECT_EQ(host_->open("nothing", "x").code(), Err::kNotFound);
}

TEST_F(PluginLoad, files_load_in_the_order_of_their_names_and_others_are_ignored) {
  install("transports/loopback.so", "b.so");
  install("transports/ws_broker.so", "a.so");
  std::ofstream(folder_ + "/readme.txt") << "not a plugin";
  load();
  ASSERT_EQ(host_->plugins().size(), 2u);
  EXPECT_EQ(host_->plugins()[0].kind, "ws-broker");
  EXPECT_EQ(host_->plugins()[1].kind, "loopback");
}

TEST_F(PluginLoad, another_major_version_is_refused) {
  EXPECT_EQ(refusal_of_bad("wrong_major"), "it was built for ABI 2, this host speaks 1");
  EXPECT_EQ(host_->plugins().front().abi_major, 2u);
}
TEST_F(PluginLoad, a_missing_member_is_refused_by_its_name) {
  EXPECT_EQ(refusal_of_bad("missing_member"), "its member 'resume' is not set");
}
TEST_F(PluginLoad, a_null_answer_is_refused) {
  EXPECT_EQ(refusal_of_bad("null_entry"),
            "cm_transport_entry answered NULL: it cannot work with ABI 1");
}
TEST_F(PluginLoad, a_missing_entry_is_refused) {
  EXPECT_EQ(refusal_of_bad("no_entry"), "it does not export cm_transport_entry");
}
TEST_F(PluginLoad, a_short_table_is_refused) {
  EXPECT_EQ(refusal_of_bad("small_struct"),
            "its cm_transport has 64 bytes, at least 120 are needed");
}
TEST_F(PluginLoad, a_kind_of_another_form_is_refused) {
  EXPECT_EQ(refusal_of_bad("bad_kind"), "its kind is not of the form [a-z0-9-]{1,32}");
}
TEST_F(PluginLoad, a_message_size_of_zero_is_refused) {
  EXPECT_EQ(refusal_of_bad("no_size"), "its max_message_bytes is 0");
}
TEST_F(PluginLoad, listen_without_unlisten_is_refused) {
  EXPECT_EQ(refusal_of_bad("half_listen"),
            "only one of its members 'listen' and 'unlisten' is set");
}

TEST_F(PluginLoad, the_second_plugin_of_a_kind_is_refused) {
  const std::string first = install_bad("bad_twin_a");
  install_bad("bad_twin_b");
  load();
  ASSERT_EQ(host_->plugins().size(), 2u);
  EXPECT_TRUE(host_->plugins()[0].loaded);
  EXPECT_FALSE(host_->plugins()[1].loaded);
  EXPECT_EQ(host_->plugins()[1].refusal, "its kind 'twin' is taken by " + first);
}

TEST_F(PluginLoad, a_file_that_is_no_library_is_refused) {
  std::ofstream(folder_ + "/text.so") << "hello";
  ::chmod((folder_ + "/text.so").c_str(), 0600);
  EXPECT_EQ(refusal().substr(0, 23), "it cannot be loaded: /p");
}

TEST_F(PluginLoad, a_world_writable_file_is_refused) {
  install("transports/loopback.so", "loopback.so", 0606);
  EXPECT_EQ(refusal(), "the file is writable by everyone");
  EXPECT_TRUE(host_->plugins().front().sha256.empty());
}

TEST_F(PluginLoad, a_group_writable_file_is_refused) {
  install("transports/loopback.so", "loopback.so", 0660);
  EXPECT_EQ(refusal(), "the file is writable by its group");
}

TEST_F(PluginLoad, a_world_writable_folder_anywhere_above_is_refused) {
  install("transports/loopback.so", "loopback.so");
  ::chmod(root_.c_str(), 0707);
  EXPECT_EQ(refusal(), "folder " + root_ + " is writable by everyone");
  EXPECT_EQ(host_->plugins().front().path, folder_);
}

TEST_F(PluginLoad, a_sticky_world_writable_folder_is_refused_unless_it_is_trusted) {
  install("transports/loopback.so", "loopback.so");
  options_.trust_sticky = false;
  EXPECT_EQ(refusal(), "folder /tmp is writable by everyone");
}

TEST_F(PluginLoad, a_file_of_another_user_is_refused) {
  const std::string path = install("transports/loopback.so", "loopback.so");
  if (::chown(path.c_str(), 65534, 65534) != 0) GTEST_SKIP() << "only root may give files away";
  EXPECT_EQ(refusal(), "the file belongs to another user");
}

TEST_F(PluginLoad, symbolic_links_are_refused_as_file_and_as_folder) {
  const std::string real = install("transports/loopback.so", "loopback.bin");
  ASSERT_EQ(::symlink(real.c_str(), (folder_ + "/link.so").c_str()), 0);
  EXPECT_EQ(refusal(), "it is a symbolic link");
  const std::string link = root_ + "/link";
  ASSERT_EQ(::symlink(folder_.c_str(), link.c_str()), 0);
  folder_ = link;
  EXPECT_EQ(refusal(), "folder " + link + " is a symbolic link or no folder: give its real path");
}

TEST_F(PluginLoad, what_is_no_regular_file_is_refused_without_waiting_for_it) {
  ASSERT_EQ(::mkfifo((folder_ + "/pipe.so").c_str(), 0600), 0);
  EXPECT_EQ(refusal(), "it is not a regular file");
}

TEST_F(PluginLoad, folders_are_absolute_plain_paths_that_exist) {
  for (const auto& [path, sentence] : std::vector<std::pair<std::string, std::string>>{
           {"transports", "folder transports is not an absolute path"},
           {root_ + "/../x", "folder " + root_ + "/../x is not written without . and .."},
           {root_ + "/none", "folder " + root_ + "/none: No such file or directory"}}) {
    folder_ = path;
    EXPECT_EQ(refusal(), sentence);
  }
}

TEST_F(PluginLoad, the_loaded_descriptor_stays_open_and_names_each_library_once) {
  install("transports/loopback.so", "a.so");
  install("tests/plugins_bad/puppet.so", "b.so");
  load();
  std::size_t open = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const auto to = std::filesystem::read_symlink(entry.path(), error);
    open += to.string().starts_with(folder_) ? 1 : 0;
  }
  EXPECT_EQ(open, 2u);
  EXPECT_EQ(host_->plugins()[0].kind, "loopback");
  EXPECT_EQ(host_->plugins()[1].kind, "puppet");
}

// The dynamic symbols that a library defines, read from its file.
std::vector<std::string> exports_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const auto at = [&](std::size_t offset) { return bytes.data() + offset; };
  Elf64_Ehdr head;
  std::memcpy(&head, at(0), sizeof head);
  std::vector<Elf64_Shdr> sections(head.e_shnum);
  std::memcpy(sections.data(), at(head.e_shoff), sizeof(Elf64_Shdr) * sections.size());
  std::vector<std::string> names;
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type != SHT_DYNSYM) continue;
    for (std::size_t index = 0; index < section.sh_size / sizeof(Elf64_Sym); ++index) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, at(section.sh_offset + index * sizeof symbol), sizeof symbol);
      if (symbol.st_shndx == SHN_UNDEF || ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
      names.push_back(at(sections[section.sh_link].sh_offset + symbol.st_name));
    }
  }
  return names;
}

TEST_F(PluginLoad, our_plugins_export_one_symbol) {
  const std::vector<std::string> one = {"cm_transport_entry"};
  EXPECT_EQ(exports_of(built("transports/loopback.so")), one);
  EXPECT_EQ(exports_of(built("transports/ws_broker.so")), one);
}

TEST(PluginText, foreign_text_is_made_harmless_and_cut_between_characters) {
  EXPECT_EQ(harmless("plain", 10), "plain");
  EXPECT_EQ(harmless("a\nb\x7f", 10), "a?b?");
  EXPECT_EQ(harmless("\xc3\xa9t\xc3\xa9", 4), "\xc3\xa9t");
  EXPECT_EQ(harmless("x\xff", 4), "x?");
}

}  // namespace
}  // namespace cm::plugins
