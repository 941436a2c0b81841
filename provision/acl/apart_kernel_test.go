package acl_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// refusedOf returns what the kernel has refused of the changes while all else holds.
func refusedOf(t *testing.T, err error) []string {
	t.Helper()
	var r *access.RefusedError
	require.ErrorAs(t, err, &r)
	var out []string
	for _, c := range r.Changes {
		out = append(out, c.Op.String()+" "+c.Set.String()+" "+c.Element.String())
	}
	return out
}

// One element that the kernel refuses does not keep thousands of others out.
func TestKernelOneRefusedElementKeepsNobodyOut(t *testing.T) {
	r := newRouter(t)
	table := r.open()
	observe(t, table)
	var want access.ACL
	want[access.SetStopped] = access.Addrs(subscribers(0, 5000)...)
	want[access.SetResolvers] = access.Prefixes(prefixesOf("192.0.2.53/32")...)
	// Of two networks that overlap, which no wish of ours has, it takes one.
	want[access.SetGarden] = access.Prefixes(prefixesOf("198.51.100.0/24", "198.51.100.8/29", "203.0.113.0/24")...)
	began := time.Now()
	err := table.Apply(t.Context(), access.Plan(want, access.ACL{}))
	t.Logf("it took %s", time.Since(began))
	refused := refusedOf(t, err)
	require.Len(t, refused, 1)
	require.Regexp(t, `^add garden 198\.51\.100\.(0/24|8/29)$`, refused[0])
	require.ErrorIs(t, err, unix.EEXIST)
	have := observe(t, table)
	require.Equal(t, want[access.SetStopped], have[access.SetStopped])
	require.Equal(t, want[access.SetResolvers], have[access.SetResolvers])
	require.Equal(t, 2, have.Counts()[access.SetGarden])
	require.False(t, changed(t, table), "what is there is known")

	// A network in place of a smaller one is none that overlaps in the end, though
	// something else is refused.
	err = table.Apply(t.Context(), []access.Change{
		{Op: provision.OpRemove, Element: element(t, access.SetGarden, "203.0.113.0/24")}, {Op: provision.OpAdd, Element: element(t, access.SetGarden, "203.0.112.0/23")},
		{Op: provision.OpAdd, Element: element(t, access.SetResolvers, "192.0.0.0/8")},
	})
	require.Equal(t, []string{"add resolvers 192.0.0.0/8"}, refusedOf(t, err))
	require.Contains(t, observe(t, table).Strings(access.SetGarden), "203.0.112.0/23")
	err = table.Apply(t.Context(), []access.Change{
		{Op: provision.OpRemove, Element: element(t, access.SetGarden, "203.0.112.0/23")}, {Op: provision.OpAdd, Element: element(t, access.SetGarden, "203.0.112.0/24")},
		{Op: provision.OpAdd, Element: element(t, access.SetGarden, "203.0.113.0/24")}, {Op: provision.OpAdd, Element: element(t, access.SetResolvers, "192.0.0.0/8")},
	})
	require.Equal(t, []string{"add resolvers 192.0.0.0/8"}, refusedOf(t, err))
	require.Subset(t, observe(t, table).Strings(access.SetGarden), []string{"203.0.112.0/24", "203.0.113.0/24"})
}

func element(t *testing.T, s access.Set, prefix string) access.Element {
	t.Helper()
	e, err := s.Element(access.Fields{Prefix: netip.MustParsePrefix(prefix)})
	require.NoError(t, err)
	return e
}

// Who goes from one set to another is in one of them, whatever the kernel refuses.
func TestKernelRefusedMoveOpensNobody(t *testing.T) {
	r := newRouter(t)
	text := strings.Replace(r.usherText(t), "set stopped {\n\t\ttype ipv4_addr", "set stopped {\n\t\ttype ipv4_addr\n\t\tsize 3", 1)
	r.nft(text)
	table := r.open()
	a := subscribers(0, 6)
	apply(t, table, access.Plan(access.ACL{access.SetPaused: access.Addrs(a...)}, observe(t, table)))
	require.Contains(t, r.list(), "size 3", "taken as it is")

	want := access.ACL{access.SetStopped: access.Addrs(a...), access.SetPaused: access.Addrs(subscribers(900, 1)...)}
	err := table.Apply(t.Context(), access.Plan(want, observe(t, table)))
	refused := refusedOf(t, err)
	require.ErrorIs(t, err, unix.ENFILE)
	require.Len(t, refused, 2*3, "three additions with their removals: %v", refused)
	have := observe(t, table)
	require.Equal(t, 3, have.Counts()[access.SetStopped])
	for _, ip := range a {
		require.NotZero(t, have.Standing(ip), "%s is open", ip)
	}
	require.Equal(t, access.SetPaused, have.Standing(netip.MustParseAddr("100.64.3.132")), "who has nothing to do with it")
}

// usherText returns the file of the table without its comment.
func (r *router) usherText(t *testing.T) string {
	t.Helper()
	r.load("usher.nft")
	text := r.list()
	r.nft("delete table inet usher")
	return text
}
