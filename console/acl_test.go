package console

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/lease"
)

// fakeACL is all that ACLDeps asks.
type fakeACL struct {
	want   access.ACL
	view   acl.View
	err    error
	until  time.Time
	reason string
	now    func() time.Time
	spared map[netip.Addr]access.Spared
}

func (f *fakeACL) Want() (access.ACL, error) { return f.want, f.err }

func (f *fakeACL) Spared(a netip.Addr) access.Spared { return f.spared[a] }

func (f *fakeACL) Verify(context.Context) (access.Verification, error) {
	return access.Verification{Missing: 1, By: []string{"nft (7)"}}, f.err
}
func (f *fakeACL) Read(context.Context) (acl.View, error) { return f.view, f.err }
func (f *fakeACL) AsNFT(context.Context) (string, error)  { return "table inet usher {\n}\n", f.err }
func (f *fakeACL) Passed(context.Context) ([]acl.Passed, error) {
	return []acl.Passed{{Chain: "from_paused", What: "dns", Counter: access.Counter{Packets: 3, Bytes: 180}}}, f.err
}
func (f *fakeACL) Shut(context.Context) error { f.until = time.Time{}; return f.err }
func (f *fakeACL) Reason(time.Time) string    { return f.reason }
func (f *fakeACL) exempt(id provision.SubscriberID, _ netip.Addr) string {
	if id == 1003 {
		return "acl.exempt.customers"
	}
	return ""
}

func (f *fakeACL) Sets(_ context.Context, a netip.Addr) (out []access.Set, err error) {
	if wantOf(f.view.ACL, a) == "paused" {
		out = append(out, access.SetPaused)
	}
	return out, f.err
}

func (f *fakeACL) Counters(_ context.Context, addrs []netip.Addr) (map[netip.Addr]access.Counter, error) {
	return map[netip.Addr]access.Counter{addrs[0]: {Packets: 5, Bytes: 420}}, f.err
}

func (f *fakeACL) OpenFor(_ context.Context, d time.Duration, reason string) (time.Time, error) {
	f.until, f.reason = f.now().Add(d), reason
	return f.until, f.err
}

func newACLWorld(t *testing.T) (*world, *fakeACL, *Client) {
	t.Helper()
	w := newWorld(t)
	f := &fakeACL{
		now:  w.Now,
		want: access.ACL{access.SetPaused: access.Addrs(ip("198.51.100.12")), access.SetGuests: access.Addrs(ip("198.51.100.200"))},
		view: acl.View{Exists: true, Generation: 9, ACL: access.ACL{access.SetPaused: access.Addrs(ip("198.51.100.12")), access.SetStopped: access.Addrs(ip("198.51.100.13"))}},
	}
	w.ACL = &ACLDeps{Wishes: f, Kernel: f, Maintenance: f, Exempt: f.exempt}
	w.Leases = fakeLeases{{IP: ip("198.51.100.201"), Subscriber: 1002, Pool: "more", State: lease.StateBound, Expires: w.now.Add(time.Hour)}}
	return w, f, serveWorld(t, w)
}

func TestACLShow(t *testing.T) {
	_, f, c := newACLWorld(t)
	s, err := c.ACL(t.Context())
	require.NoError(t, err)
	assert.True(t, s.Exists)
	byName := map[string]ACLSetView{}
	for _, set := range s.Sets {
		byName[set.Name] = set
	}
	assert.Equal(t, 1, *byName["guests"].Want)
	assert.Zero(t, byName["guests"].Have)
	assert.Equal(t, 1, byName["stopped"].Have)
	assert.Equal(t, []acl.Passed{{Chain: "from_paused", What: "dns", Counter: access.Counter{Packets: 3, Bytes: 180}}}, s.Passed)

	x, err := c.ACLOf(t.Context(), "1002")
	require.NoError(t, err)
	require.Len(t, x.Addresses, 2)
	assert.Equal(t, []string{"paused"}, x.Addresses[0].Have)
	assert.Equal(t, "customer 1002 is paused", x.Addresses[0].Why)
	assert.Equal(t, access.Counter{Packets: 5, Bytes: 420}, x.Addresses[0].Blocked)
	assert.Equal(t, "customer 1002 is paused and has it by a lease of the pool more", x.Addresses[1].Why)
	x, err = c.ACLOf(t.Context(), "198.51.100.13")
	require.NoError(t, err)
	assert.Equal(t, "exempt by acl.exempt.customers; customer 1003 is stopped", x.Addresses[0].Why)
	x, err = c.ACLOf(t.Context(), "198.51.100.200")
	require.NoError(t, err)
	assert.Equal(t, "it is one of a pool for guests, and nobody is bound to it", x.Addresses[0].Why)
	text, err := c.ACLText(t.Context())
	require.NoError(t, err)
	assert.Equal(t, "table inet usher {\n}\n", text.Text)

	for q, want := range map[string]int{"00:00:5e:00:53:11": 400, "nonsense": 400, "4711": 404} {
		_, err := c.ACLOf(t.Context(), q)
		var status *StatusError
		require.ErrorAs(t, err, &status, q)
		assert.Equal(t, want, status.Code, q)
	}
	f.err = errors.New("the kernel is gone")
	_, err = c.ACL(t.Context())
	require.ErrorContains(t, err, "the kernel is gone")
	f.err = access.ErrNoSnapshot
	_, err = c.ACLOf(t.Context(), "1002")
	require.ErrorContains(t, err, "no snapshot yet")
}

func TestACLOfWhatIsSpared(t *testing.T) {
	w, f, c := newACLWorld(t)
	f.spared = map[netip.Addr]access.Spared{ip("198.51.100.12"): access.SparedResolver, ip("198.51.100.11"): access.SparedOwn}
	x, err := c.ACLOf(t.Context(), "198.51.100.12")
	require.NoError(t, err)
	assert.Equal(t, "customer 1002 is paused, but it is a name server, which is never blocked", x.Addresses[0].Why)
	x, err = c.ACLOf(t.Context(), "1001")
	require.NoError(t, err)
	assert.Empty(t, x.Addresses[0].Spared, "an active customer is not blocked anyway")
	e, err := w.explain(t.Context(), "1002")
	require.NoError(t, err)
	assert.Equal(t, "open", e.Bindings[0].ACL.Want)
	assert.Contains(t, e.Summary, "Attention: customer 1002 is paused, but 198.51.100.12 is not blocked: it is a name server. Correct it in the ERP.")
	assert.NotContains(t, e.Summary, "its forwarded IPv4 traffic")
}

// What reaches a blocked customer all the same is said where it can happen.
func TestExplainTellsOfMulticast(t *testing.T) {
	const sentence = "This router forwards multicast"
	w, _, _ := newACLWorld(t)
	for _, routed := range []bool{false, true} {
		w.Multicast = func() bool { return routed }
		e, err := w.explain(t.Context(), "1002")
		require.NoError(t, err)
		assert.Equal(t, routed, strings.Contains(e.Summary, sentence))
		e, err = w.explain(t.Context(), "1001")
		require.NoError(t, err)
		assert.NotContains(t, e.Summary, sentence, "an active customer")
	}
}

func TestACLDiffAndVerify(t *testing.T) {
	_, f, c := newACLWorld(t)
	d, err := c.ACLDiff(t.Context(), 1)
	require.NoError(t, err)
	assert.False(t, d.Equal())
	assert.Equal(t, []ACLChange{{"add", "guests", "198.51.100.200"}}, d.Changes)
	assert.Equal(t, 1, d.More)
	assert.Equal(t, 1, d.Remove[access.SetStopped])
	_, err = c.ACLDiff(t.Context(), -1)
	require.ErrorContains(t, err, "want 0 to 10000")
	f.view.ACL = f.want
	d, err = c.ACLDiff(t.Context(), 1)
	require.NoError(t, err)
	assert.True(t, d.Equal())
	f.view.Defect = "no chain forward"
	d, err = c.ACLDiff(t.Context(), 1)
	require.NoError(t, err)
	assert.False(t, d.Equal(), "rules count too")
	v, err := c.VerifyACL(t.Context())
	require.NoError(t, err)
	assert.False(t, v.Equal())
	assert.Equal(t, []string{"nft (7)"}, v.By)
}

func TestACLOpen(t *testing.T) {
	w, f, c := newACLWorld(t)
	m, err := c.OpenACL(t.Context(), 30*time.Minute, "a new switch")
	require.NoError(t, err)
	assert.Equal(t, w.now.Add(30*time.Minute), m.Until)
	w.enforcer.status.OpenUntil = f.until
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.NotNil(t, st.Open)
	assert.Equal(t, "a new switch", st.Open.Reason)
	assert.InDelta(t, 1800, st.Open.LeftSeconds, 0)
	for _, d := range []time.Duration{0, -time.Second, 25 * time.Hour} {
		_, err = c.OpenACL(t.Context(), d, "")
		require.ErrorContains(t, err, "want 1s to 24h", d)
	}
	_, err = c.OpenACL(t.Context(), time.Minute, string(make([]byte, 300)))
	require.ErrorContains(t, err, "want at most 200")
	closed, err := c.CloseACL(t.Context())
	require.NoError(t, err)
	assert.True(t, closed.WasOpen)

	w.ACL.Maintenance = nil // a dry run
	var status *StatusError
	_, err = c.OpenACL(t.Context(), time.Minute, "")
	require.ErrorAs(t, err, &status)
	assert.Equal(t, http.StatusConflict, status.Code)
}

func TestACLSwitchedOff(t *testing.T) {
	_, err := serveWorld(t, newWorld(t)).ACL(t.Context())
	require.ErrorContains(t, err, "acl.enabled is false")
}
