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
	"config":                  {"provision", "dhcpd/option82", "dhcpd/vlanname", "console/portal"}, // words of the vocabulary; profiles, templates and the portal's page are checked where their line is known
	"userside":                {},                                                                  // a client of the ERP knows nothing of what it is used for
	"userside/emulator":       {"userside"},                                                        // words of the wire only
	"userside/record":         {},                                                                  // it masks and serves text, whatever it means
	"provision":               {},                                                                  // the core is the standard library and nothing else
	"provision/provisiontest": {"provision"},                                                       // inputs and snapshots for tests
	"provision/syncer":        {"provision"},
	"provision/lease":         {"provision"},
	"provision/pool":          {"provision"}, // the word MAC; it allocates and knows nothing of packets, leases or disks
	"provision/access":        {"provision"},
	"provision/route":         {"provision"},
	"provision/neighbour":     {"provision"},
	"provision/erp":           {"provision", "provision/syncer", "userside"}, // it is the syncer's Fetcher
	"provision/outbox":        {"provision"},
	"provision/acl":           {"provision", "provision/access"},                                           // it is the enforcer's Kernel
	"provision/link":          {"provision", "provision/access", "provision/neighbour", "provision/route"}, // it is the Flows of the first and the Kernel of the others
	"provision/garden":        {},                                                                          // names and prefixes, whoever uses them
	"provision/link/lab":      {},
	"console/portal":          {"provision", "provision/access"},                                                                                            // reachable for subscribers, so it has no way to what the console shows; what the kernel was brought to
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
	"cmd/usher": {"config", "userside", "userside/emulator", "userside/record", "provision", "provision/access", "provision/acl", "provision/erp", "provision/garden",
		"provision/lease", "provision/link", "provision/link/lab", "provision/neighbour", "provision/outbox", "provision/route", "provision/syncer",
		"dhcpd", "dhcpd/v4", "dhcpd/line", "dhcpd/options", "dhcpd/wire", "dhcpd/option82", "dhcpd/vlanname", "dhcpd/probe", "console", "console/portal"}, // it wires everything
}

// edges are libraries that stay inside one package, with the only ones that may import them.
var edges = map[string][]string{
	"github.com/google/nftables":          {"provision/acl"},
	"github.com/mdlayher/netlink":         {"provision/acl"},
	"github.com/vishvananda/netlink":      {"provision/link"},
	"github.com/vishvananda/netns":        {"provision/link"},
	"go.etcd.io/bbolt":                    {"cmd/usher", "provision/lease", "provision/outbox", "userside/emulator"},
	"github.com/goccy/go-yaml":            {"config"},
	"github.com/spf13/cobra":              {"cmd/usher"},
	"github.com/coreos/go-systemd":        {"cmd/usher"},
	"github.com/prometheus/client_golang": {"console", "cmd/usher"},
	"github.com/insomniacslk/dhcp":        {"dhcpd/probe"},
	"net/http":                            {"cmd/usher", "console", "console/portal", "userside", "userside/emulator", "userside/record", "provision/erp"}, // erp: the name of a status code
	"os/exec":                             {"provision/link/lab", "cmd/usher"},                                                                             // the demo runs real programs; the agent never does
	"golang.org/x/sys":                    {"cmd/usher", "dhcpd/socket", "dhcpd/probe", "provision/acl", "provision/link", "provision/link/lab", "config", "console"},
}

// imports gives the imports of every non-test file of the repository, by folder.
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
