package acl_test

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/acl/ruleset"
)

// A maintenance that somebody begins with nft ends as all do: without an end in time,
// or with one that is too far, it gets the longest that there is, and the log says so.
func TestKernelMaintenanceByHandEnds(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		element string
		open    bool // everybody passes, for a day
		told    bool
	}{
		"without an end":               {"ipv4", true, true},
		"for a year":                   {"ipv4 timeout 365d", true, true},
		"everything":                   {"*", true, true},
		"another protocol, no end":     {"ipv6", false, true},
		"another protocol, for a time": {"ipv6 timeout 10m", false, true},
	} {
		for damage, edit := range map[string]string{
			"": "", " and rules flushed": "flush chain inet usher to_paused", " and a set added": "add set inet usher more { type ipv6_addr ; }",
		} {
			t.Run(name+damage, func(t *testing.T) {
				r := newRouter(t)
				var log bytes.Buffer
				table := r.openWith(acl.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
				r.nft("add element inet usher open { " + tt.element + " }")
				if edit != "" {
					r.nft(edit)
				}
				require.True(t, changed(t, table))
				observe(t, table)
				require.False(t, changed(t, table), "our own repair is no foreign change")
				require.Equal(t, tt.told, regexp.MustCompile(`level=WARN msg="somebody has put into the set of the maintenance an element`).MatchString(log.String()), "%s", log.String())
				if tt.open {
					require.Regexp(t, `elements = \{ ipv4 timeout 1d expires `, openSet(r))
					require.WithinDuration(t, time.Now().Add(acl.MaxOpen), table.OpenUntil(), time.Minute)
				} else {
					require.Zero(t, table.OpenUntil())
				}
				require.NotRegexp(t, `(ipv[46]|\*)[ ,}\n]*[},]`, openSet(r), "without an end")
				require.Equal(t, tt.open, strings.Contains(openSet(r), "ipv6"), "IPv6 is open with all else or not at all")
				_, err := table.AsNFT(t.Context())
				require.NoError(t, err)
				require.NoError(t, table.Shut(t.Context()))
				require.Zero(t, table.OpenUntil())
			})
		}
	}
}

// openSet is the set of the switch as nft prints it.
func openSet(r *router) string {
	return r.nft("list", "set", "inet", "usher", ruleset.SetOpen)
}

// An end that somebody has given by hand, and that is near enough, stays.
func TestKernelMaintenanceByHandWithAnEndStays(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	r.nft("add element inet usher open { ipv4 timeout 10m }")
	generation := table.Generation()
	observe(t, table)
	require.Equal(t, generation+1, table.Generation(), "something was written besides")
	require.WithinDuration(t, time.Now().Add(10*time.Minute), table.OpenUntil(), time.Minute)
}

// A maintenance is of both families: whoever opens IPv6 alone opens it to the blocked, and no status tells of it.
func TestKernelMaintenanceOfIPv6AloneEnds(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	r.nft("add element inet usher open { ipv6 timeout 1h }")
	observe(t, table)
	require.NotContains(t, openSet(r), "ipv6")
	require.Zero(t, table.OpenUntil())
	r.nft("add element inet usher open { ipv4 timeout 10m, ipv6 timeout 10m }")
	observe(t, table)
	require.Contains(t, openSet(r), "ipv6")
	require.WithinDuration(t, time.Now().Add(10*time.Minute), table.OpenUntil(), time.Minute)
}
