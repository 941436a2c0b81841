package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/usher-agent/usher/"

// arrows are the imports between our own packages that the architecture allows
// (docs/architecture.md). A new one needs a reason there first.
var arrows = map[string][]string{
	"config/keys": {}, // it reads any file by its declarations
	"config": {"config/keys", "userside", "provision", "provision/access", "provision/erp", "provision/garden", "provision/neighbour", "provision/outbox", "provision/route",
		"provision/syncer", "dhcpd", "dhcpd/v4", "dhcpd/line", "dhcpd/options", "dhcpd/option82", "dhcpd/vlanname", "console/portal"}, // it fills the parts' own options, and checks profiles, templates and the portal's page where their line is known
	"userside":                {},                                                                          // a client of the ERP knows nothing of what it is used for
	"userside/emulator":       {"userside"},                                                                // words of the wire only
	"userside/record":         {},                                                                          // it masks and serves text, whatever it means
	"provision":               {},                                                                          // the core is the standard library and nothing else
	"provision/provisiontest": {"provision"},                                                               // inputs and snapshots for tests
	"provision/statedir":      {},                                                                          // files of state_dir, whatever is in them
	"provision/syncer":        {"provision", "provision/statedir"},                                         // its stored snapshot is one
	"provision/lease":         {"provision", "provision/statedir"},                                         // state.db is one
	"provision/pool":          {"provision"},                                                               // the word MAC; it allocates and knows nothing of packets, leases or disks
	"provision/access":        {"provision", "provision/lease"},                                            // the ACL follows leases: from pools, and for the source guard
	"provision/route":         {"provision", "provision/lease"},                                            // routes follow leases
	"provision/neighbour":     {"provision", "provision/lease"},                                            // a lease is the better witness
	"provision/erp":           {"provision", "provision/syncer", "userside"},                               // it is the syncer's Fetcher
	"provision/outbox":        {"provision", "provision/lease"},                                            // its queue is kept in the leases' store: one commit for both
	"provision/acl":           {"provision", "provision/access", "provision/acl/ruleset"},                  // it is the enforcer's Kernel
	"provision/acl/ruleset":   {"provision/access"},                                                        // what the table is, of the sets there are; it talks to nobody
	"provision/link":          {"provision", "provision/access", "provision/neighbour", "provision/route"}, // it is the Flows of the first and the Kernel of the others
	"provision/garden":        {"provision/statedir"},                                                      // names and prefixes, whoever uses them; garden.json is a file of state_dir
	"provision/link/lab":      {},
	"console/portal":          {"provision", "provision/access", "provision/lease"},                                                                         // reachable for subscribers, so it has no way to what the console shows; who has an address, and what the kernel was brought to
	"dhcpd":                   {"provision", "dhcpd/v4", "dhcpd/line", "dhcpd/socket", "dhcpd/wire", "provision/lease", "dhcpd/option82", "provision/pool"}, // option82: which profiles are the configuration's own, and the words of a fault; pool: it has the allocators
	"dhcpd/v4":                {"provision", "dhcpd/line", "dhcpd/options", "dhcpd/wire", "provision/lease", "provision/pool"},                              // pool: how well an address fits
	"dhcpd/line":              {"provision", "dhcpd/wire", "dhcpd/option82", "dhcpd/vlanname"},                                                              // a port of the ERP, from the bytes that name it
	"dhcpd/options":           {"dhcpd/option82", "dhcpd/wire"},                                                                                             // its patterns choose classes of clients; how options are encoded
	"dhcpd/socket":            {"provision", "dhcpd/wire"},                                                                                                  // the words MAC and Interface; the ways of a reply
	"dhcpd/wire":              {},
	"dhcpd/option82":          {"dhcpd/wire"}, // it reads sub-options and knows nothing of who asks
	"dhcpd/vlanname":          {},
	"dhcpd/probe":             {}, // it asks servers with another codec than ours, so that the two check each other
	"console": {"config", "userside", "provision", "provision/access", "provision/erp", "provision/garden", "provision/lease", "provision/neighbour",
		"provision/outbox", "provision/pool", "provision/route", "provision/syncer", "provision/acl", "provision/link",
		"console/portal", "dhcpd", "dhcpd/v4", "dhcpd/line", "dhcpd/wire", "dhcpd/option82"}, // it shows everything
	"systemd": {},
	"cmd/usher": {"cmd/usher/internal/agent", "cmd/usher/internal/cli", "cmd/usher/internal/demo", "cmd/usher/internal/erpcmd", "cmd/usher/internal/show",
		"cmd/usher/internal/tools", "config", "config/keys"}, // flags, signals and exit codes; "usher check" reads a configuration
	"cmd/usher/internal/agent": {"config", "config/keys", "userside", "provision", "provision/access", "provision/acl", "provision/acl/ruleset", "provision/erp", "provision/garden",
		"provision/lease", "provision/link", "provision/neighbour", "provision/outbox", "provision/route", "provision/statedir", "provision/syncer",
		"dhcpd", "dhcpd/v4", "dhcpd/vlanname", "console", "console/portal"}, // it makes every part that runs
	"cmd/usher/internal/cli":         {"console"},                // the client of the control socket
	"cmd/usher/internal/cli/clitest": {"cmd/usher/internal/cli"}, // command lines in the process of a test
	"cmd/usher/internal/demo": {"cmd/usher/internal/agent", "cmd/usher/internal/cli", "cmd/usher/internal/miniature",
		"console", "dhcpd/probe", "provision", "provision/link/lab", "userside/emulator"}, // it runs the program and looks on as a person would; of the agent: how long it may take to stop
	"cmd/usher/internal/erpcmd": {"cmd/usher/internal/agent", "cmd/usher/internal/cli", "config", "config/keys", "console", "provision", "provision/erp",
		"userside", "userside/record"}, // it asks the ERP as the agent would
	"cmd/usher/internal/miniature": {"console", "provision/link/lab", "userside/emulator"}, // hosts, an ERP and a client of the agent's socket
	"cmd/usher/internal/show": {"cmd/usher/internal/agent", "cmd/usher/internal/cli", "config", "console", "dhcpd", "dhcpd/line", "dhcpd/option82",
		"provision", "provision/access", "provision/acl", "provision/acl/ruleset", "provision/link", "provision/route", "provision/syncer"}, // what the console tells; without an agent what the kernel has, by the agent's policy
	"cmd/usher/internal/tools":   {"cmd/usher/internal/cli", "dhcpd/probe", "userside/emulator", "userside/record"}, // what runs at a desk
	"provision/link/lab/labtest": {"provision/link/lab"},                                                            // which tests can run here
	"console/consoletest":        {"console"},                                                                       // an ERP's side of the hooks, for tests
}

// edges are libraries that stay inside one package, with the only ones that may import them.
var edges = map[string][]string{
	"github.com/google/nftables":          {"provision/acl", "provision/acl/ruleset"},
	"github.com/mdlayher/netlink":         {"provision/acl"},
	"github.com/vishvananda/netlink":      {"provision/link"},
	"github.com/vishvananda/netns":        {"provision/link"},
	"go.etcd.io/bbolt":                    {"provision/lease", "userside/emulator"},
	"github.com/goccy/go-yaml":            {"config/keys"},
	"github.com/spf13/cobra":              {"cmd/usher", "cmd/usher/internal/cli", "cmd/usher/internal/cli/clitest", "cmd/usher/internal/demo", "cmd/usher/internal/erpcmd", "cmd/usher/internal/show", "cmd/usher/internal/tools"},
	"github.com/coreos/go-systemd":        {"cmd/usher"},
	"github.com/prometheus/client_golang": {"console", "cmd/usher/internal/agent"},
	"github.com/insomniacslk/dhcp":        {"dhcpd/probe"},
	"golang.org/x/net":                    {"dhcpd/socket"},
	"net/http":                            {"cmd/usher/internal/demo", "cmd/usher/internal/erpcmd", "cmd/usher/internal/miniature", "cmd/usher/internal/tools", "console", "console/consoletest", "console/portal", "userside", "userside/emulator", "userside/record", "provision/erp"}, // erp: the name of a status code
	"os/exec":                             {"provision/link/lab", "cmd/usher/internal/demo"},                                                                                                                                                                                             // the demo runs real programs; the agent never does
	"golang.org/x/sys":                    {"cmd/usher", "cmd/usher/internal/show", "dhcpd/socket", "dhcpd/probe", "provision/acl", "provision/acl/ruleset", "provision/lease", "provision/link", "provision/link/lab", "config", "console"},
}

// imports returns the imports of every non-test file of the repository, by folder.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != root) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		found[dir] = slices.Grow(found[dir], len(f.Imports))
		for _, im := range f.Imports {
			name, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			found[dir] = append(found[dir], name)
		}
		return nil
	})
	require.NoError(t, err)
	return found
}

func TestArrowsBetweenPackages(t *testing.T) {
	found := imports(t)
	require.NotEmpty(t, found)
	for pkg, names := range found {
		allowed, known := arrows[pkg]
		require.True(t, known, "package %s is not in docs/architecture.md and this test", pkg)
		for _, name := range names {
			if own, ok := strings.CutPrefix(name, module); ok {
				require.Contains(t, allowed, own, "%s imports %s", pkg, own)
			}
		}
	}
}

func TestLibrariesStayInTheirPackage(t *testing.T) {
	for pkg, names := range imports(t) {
		for _, name := range names {
			for lib, users := range edges {
				if name == lib || strings.HasPrefix(name, lib+"/") {
					require.Contains(t, users, pkg, "%s imports %s", pkg, name)
				}
			}
		}
	}
}

// A sleep is no synchronisation. Under testing/synctest it only moves the
// bubble's clock, so test files that import that may have it.
func TestNobodySleeps(t *testing.T) {
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "arrows_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), "time.Sleep(") {
			return err
		}
		require.True(t, strings.HasSuffix(path, "_test.go") && strings.Contains(string(b), `"testing/synctest"`), "%s sleeps", path)
		return nil
	})
	require.NoError(t, err)
}

func TestTheCoreUsesTheStandardLibraryOnly(t *testing.T) {
	for _, name := range imports(t)["provision"] {
		require.NotContains(t, strings.SplitN(name, "/", 2)[0], ".", "provision imports %s", name)
	}
}
