package senders

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

var testNow = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// desk is a register with the configuration and the bindings that packets are judged by.
type desk struct {
	*Register
	t    testing.TB
	cfg  *v4.Config
	snap *provision.Snapshot
	log  bytes.Buffer
	now  time.Time
}

// newDesk makes one. 100.64.0.9 is a subscriber's; 10.9.0.1 this host's.
func newDesk(t testing.TB, change func(*v4.Options)) *desk {
	t.Helper()
	d := &desk{t: t, now: testNow}
	d.Register = New(slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})))
	d.snap, _ = provision.Build(provision.Input{Lines: []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(ip("100.64.0.9")), MAC: provision.MAC{2, 0, 0, 0, 0, 9}}}})
	require.Equal(t, 1, d.snap.Len())
	d.reload(change)
	return d
}

func (d *desk) reload(change func(*v4.Options)) {
	d.t.Helper()
	o := v4.Options{Subnets: []v4.Subnet{{Prefix: netip.MustParsePrefix("100.64.0.0/24"), LeaseTime: time.Hour}}}
	if change != nil {
		change(&o)
	}
	var err error
	d.cfg, err = v4.Compile(o)
	require.NoError(d.t, err)
}

func (d *desk) judge(r *v4.Request) {
	r.OwnFrom = r.P.From.Addr() == ip("10.9.0.1")
	v4.Judge(r, d.snap, d.cfg)
}

// packet returns a packet as the server judges it. A relay's is "giaddr source interface", a switch's the interface.
func (d *desk) packet(kind wire.MessageType, from string) *v4.Request {
	d.t.Helper()
	q := wire.Query{Type: kind, MAC: [6]byte{2, 0, 0, 0, 0, 7}}
	words := strings.Fields(from)
	r := &v4.Request{Served: true}
	name := words[len(words)-1]
	if len(words) == 3 {
		q.GIAddr = ip(words[0])
		r.P.From = netip.AddrPortFrom(ip(words[1]), 67)
	} else {
		q.Option82 = []byte{1, 1, 7}
	}
	r.P.Read(q.Append(nil))
	r.P.Ingress = d.cfg.Line().Ingress(name)
	for _, c := range name {
		r.Ifindex = r.Ifindex*131 + int(c)
	}
	r.Ifindex &= 1<<30 - 1
	d.judge(r)
	return r
}

func (d *desk) note(n int, from ...string) {
	d.t.Helper()
	for _, f := range from {
		for range n {
			d.Note(d.now, d.packet(wire.Discover, f), d.cfg)
		}
	}
}

func (d *desk) status() Status { return d.Status(d.cfg, d.judge) }

// told returns senders as "state giaddr source interface packets".
func told(all []Sender) []string {
	out := []string{}
	for _, s := range all {
		if s.State.Switch() {
			out = append(out, fmt.Sprintf("%v %s %d", s.State, s.Interface, s.Packets))
		} else {
			out = append(out, fmt.Sprintf("%v %v %v %s %d", s.State, s.GIAddr, s.Source, s.Interface, s.Packets))
		}
	}
	return out
}

func relays(prefixes ...string) func(*v4.Options) {
	return func(o *v4.Options) {
		for _, p := range prefixes {
			o.Relays = append(o.Relays, netip.MustParsePrefix(p))
		}
		o.TrustedInterfaces, o.Option82Relays = []string{line.NoInterface}, []string{line.EveryRelay}
	}
}

func (d *desk) logged() []string {
	text := strings.TrimSpace(d.log.String())
	d.log.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// flood sends n packets, each with another made-up giaddr below prefix.
func (d *desk) flood(n int, prefix, source string) {
	d.t.Helper()
	for i := range n {
		d.note(1, fmt.Sprintf("%s.%d.%d %s eth1", prefix, i>>8, i&255, source))
	}
}

// Each state in one row: who sent, what is thought of it, what would believe it.
func TestStates(t *testing.T) {
	listed := relays("10.0.0.0/24", "10.5.0.1/32")
	for _, tc := range []struct {
		name   string
		from   string
		change func(*v4.Options)
		want   State
		paste  string
	}{
		{"listed", "10.0.0.1 10.0.0.1 eth0", listed, Relay, ""},
		{"listed, by another listed address", "10.0.0.1 10.5.0.1 eth0", listed, Relay, ""},
		{"by an unlisted address", "10.0.0.1 10.6.0.1 eth0", listed, UnlistedSource, ""},
		{"by an unlisted address that is not allowed", "10.0.0.1 10.6.0.1 eth0", func(o *v4.Options) { listed(o); o.CheckRelaySource = line.SourceListed }, RelaySource, "relays: [10.0.0.0/24, 10.5.0.1, 10.6.0.1]"},
		{"no list", "10.0.0.1 10.6.0.1 eth0", relays(), AnyRelay, ""},
		{"not listed", "10.7.0.1 10.6.0.1 eth0", listed, RelayUntrusted, "relays: [10.0.0.0/24, 10.5.0.1, 10.6.0.1, 10.7.0.1]"},
		{"from no address", "10.0.0.1 0.0.0.0 eth0", listed, RelayNoSource, ""},
		{"from this host", "10.0.0.1 10.9.0.1 eth0", listed, RelayNoSource, "relays: [10.0.0.0/24, 10.5.0.1, 10.0.0.1, 10.9.0.1]"},
		{"a subscriber", "10.5.0.1 100.64.0.9 eth0", listed, RelaySubscriber, "relays: [10.0.0.0/24, 10.5.0.1, 100.64.0.9]"},
		{"on an interface of subscribers", "10.0.0.3 10.0.0.3 flats", func(o *v4.Options) { listed(o); o.SubscriberInterfaces = []string{"fl*"} }, RelayInterface, "relays: [10.0.0.0/24, 10.5.0.1, 10.0.0.3]"},
		{"a trusted interface", "eth7", func(o *v4.Options) { o.TrustedInterfaces = []string{"eth7"} }, TrustedInterface, ""},
		{"any interface", "eth7", nil, AnySwitch, ""},
		{"an interface that is not trusted", "br-flats", func(o *v4.Options) { o.TrustedInterfaces = []string{"eth0*", "eth1"} }, Option82Untrusted, `trusted_interfaces: ["eth0*", eth1, "br-flats"]`},
		{"an interface with a name that means nowhere", "none", relays(), Option82Untrusted, `trusted_interfaces: ["non[e]"]`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDesk(t, tc.change)
			d.note(3, tc.from)
			st := d.status()
			got := append(st.Relays, st.Switches...)
			require.Len(t, got, 1)
			assert.Equal(t, tc.want, got[0].State)
			assert.Equal(t, uint64(3), got[0].Packets)
			assert.Equal(t, tc.paste, strings.Join(got[0].Paste, "\n"))
			c := st.Counts[tc.want]
			assert.Equal(t, Count{State: tc.want, Senders: 1, Packets: 3}, c)
			if tc.want.Refused() == 0 || tc.paste == "" {
				return
			}
			// What is to be pasted is believed.
			if key, list, _ := strings.Cut(tc.paste, ": ["); key == "relays" {
				d.reload(func(o *v4.Options) {
					tc.change(o)
					o.Relays = nil
					relays(prefixes(t, strings.TrimSuffix(list, "]"))...)(o)
				})
			} else {
				d.reload(func(o *v4.Options) { o.TrustedInterfaces = []string{"br-*", "non[e]"} })
			}
			st = d.status()
			got = append(st.Relays, st.Switches...)
			assert.Equal(t, map[bool]State{false: Relay, true: TrustedInterface}[tc.want.Switch()], got[0].State)
			assert.Empty(t, got[0].Paste)
			assert.Equal(t, 0, st.Counts[tc.want].Senders, "by the configuration of now")
			assert.Equal(t, uint64(3), st.Counts[tc.want].Packets, "as it was when they came")
		})
	}
}

func prefixes(t *testing.T, list string) (out []string) {
	t.Helper()
	for s := range strings.SplitSeq(list, ", ") {
		if !strings.Contains(s, "/") {
			s += "/32"
		}
		out = append(out, s)
	}
	return out
}

func TestStateWords(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range States() {
		text, err := s.MarshalText()
		require.NoError(t, err)
		require.False(t, seen[string(text)], "%s", text)
		seen[string(text)] = true
		var back State
		require.NoError(t, back.UnmarshalText(text))
		assert.Equal(t, s, back)
	}
	assert.Len(t, seen, 12)
	var s State
	require.NoError(t, s.UnmarshalText([]byte("of a newer agent")))
	assert.Equal(t, "invalid", s.String())
	assert.Zero(t, s.Refused())
	assert.False(t, s.Switch())
}

// An access node that asks for leases is no relay: only a refused one is kept, until it is listed.
func TestLeaseQuery(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/24"))
	d.Note(d.now, d.packet(wire.LeaseQuery, "10.8.0.1 10.8.0.1 eth0"), d.cfg)
	d.Note(d.now, d.packet(wire.LeaseQuery, "10.8.0.1 100.64.0.9 eth1"), d.cfg)
	st := d.status()
	require.Equal(t, []string{"leasequery_refused 10.8.0.1 10.8.0.1 eth0 1", "relay_subscriber 10.8.0.1 100.64.0.9 eth1 1"}, told(st.Relays))
	assert.Equal(t, []string{"leasequery: {from: [10.8.0.1]}"}, st.Relays[0].Paste)
	d.reload(func(o *v4.Options) { o.LeaseQuery.From = []netip.Prefix{netip.MustParsePrefix("10.8.0.0/24")} })
	assert.Equal(t, []string{"relay_subscriber 10.8.0.1 100.64.0.9 eth1 1"}, told(d.status().Relays))
	r := d.packet(wire.LeaseQuery, "10.8.0.1 10.8.0.1 eth0")
	require.Zero(t, r.Trust.Refused)
	d.Note(d.now, r, d.cfg)
	assert.Len(t, d.status().Relays, 1)
}

// What is not looked at, or a server's answer, brings nobody.
func TestNobody(t *testing.T) {
	d := newDesk(t, nil)
	r := d.packet(wire.Discover, "10.0.0.1 10.0.0.1 eth0")
	for _, change := range []func(*v4.Request){
		func(r *v4.Request) { r.P.Err = wire.ErrLong },
		func(r *v4.Request) { r.Trust = v4.Trust{} }, // on standby, or on an interface that is off
		func(r *v4.Request) { b := append([]byte{}, r.P.Raw()...); b[0] = 2; r.P.Read(b) },
	} {
		c := *r
		change(&c)
		d.Note(d.now, &c, d.cfg)
	}
	for _, kind := range []wire.MessageType{wire.Discover, wire.LeaseQuery} { // without a relay's address
		var direct v4.Request
		q := wire.Query{Type: kind, MAC: [6]byte{2}}
		direct.P.Read(q.Append(nil))
		d.judge(&direct)
		d.Note(d.now, &direct, d.cfg)
	}
	st := d.status()
	assert.Empty(t, st.Relays)
	assert.Empty(t, st.Switches)
}

// Whoever makes up relays neither pushes out those of another state, nor grows the register, nor
// hides a relay that goes on sending.
func TestFloodOfMadeUpSenders(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/24"))
	d.note(1, "10.0.0.1 10.0.0.1 eth0", "10.0.0.2 10.6.0.1 eth0", "10.0.0.3 100.64.0.9 eth1")
	d.note(5, "10.7.0.1 10.7.0.1 eth0") // ours, not listed yet
	const n = 5000
	d.flood(n, "172.16", "172.16.0.1")
	assert.Len(t, d.class[RelayUntrusted].entries, RelayUntrusted.limit())
	assert.Len(t, d.known, RelayUntrusted.limit()+3)
	st := d.status()
	c := st.Counts[RelayUntrusted]
	assert.Equal(t, uint64(n+5), c.Packets, "each is counted")
	assert.Equal(t, uint64(n+5-RelayUntrusted.limit()-4), c.Missed)
	assert.Equal(t, 1, st.Counts[Relay].Senders)
	assert.Equal(t, 1, st.Counts[UnlistedSource].Senders)
	assert.Equal(t, 1, st.Counts[RelaySubscriber].Senders)
	assert.Equal(t, "relay_untrusted 10.7.0.1 10.7.0.1 eth0 5", told(st.Relays)[0])

	// A relay that begins to send in the flood gets in, and stays.
	for range 3 * RelayUntrusted.limit() {
		d.now = d.now.Add(replaceEvery)
		d.note(1, "10.7.0.2 10.7.0.2 eth0")
		d.flood(3, "172.17", "172.16.0.1")
	}
	assert.Len(t, d.class[RelayUntrusted].entries, RelayUntrusted.limit())
	assert.Len(t, d.known, RelayUntrusted.limit()+3)
	assert.Equal(t, "relay_untrusted 10.7.0.2 10.7.0.2 eth0 768", told(d.status().Relays)[0])

	// The counters only rise, also over those who are pushed out.
	before := d.status().Counts[RelayUntrusted].Packets
	d.now = d.now.Add(replaceEvery)
	d.note(1, "10.7.9.9 10.7.9.9 eth0")
	assert.Equal(t, before+1, d.status().Counts[RelayUntrusted].Packets)
}

func TestTimes(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/24"))
	d.note(1, "10.0.0.1 10.0.0.1 eth0")
	d.now = d.now.Add(999 * time.Millisecond)
	d.note(1, "10.0.0.1 10.0.0.1 eth0")
	d.now = d.now.Add(time.Hour)
	d.note(1, "10.0.0.1 10.0.0.1 eth0")
	s := d.status().Relays[0]
	assert.True(t, testNow.Equal(s.FirstSeen))
	assert.True(t, d.now.Equal(s.LastSeen))
}

func TestWarnings(t *testing.T) {
	open := func(*v4.Options) {}
	d := newDesk(t, open)
	st := d.status()
	require.Len(t, st.Warnings, 2)
	assert.Equal(t, AnybodyRelays, st.Warnings[0].Kind)
	assert.Contains(t, st.Warnings[0].Text, "No relay was seen yet.")
	assert.Empty(t, st.Warnings[0].Paste)
	assert.Equal(t, AnybodySwitches, st.Warnings[1].Kind)
	assert.Equal(t, []string{"trusted_interfaces: none"}, st.Warnings[1].Paste)

	d.note(1, "10.0.0.2 10.0.1.2 eth0", "10.0.0.1 10.0.0.1 eth0", "10.0.0.3 0.0.0.0 eth1", "10.0.0.4 100.64.0.9 eth1", "eth3", "eth2")
	st = d.status()
	require.Len(t, st.Warnings, 2)
	assert.Equal(t, []string{"relays: [10.0.0.1, 10.0.0.2, 10.0.1.2]", "check_relay_source: true"}, st.Warnings[0].Paste, "nobody who is refused")
	assert.Equal(t, []string{"trusted_interfaces: [eth2, eth3]"}, st.Warnings[1].Paste)
	assert.Equal(t, []string{"trusted_interfaces: none"}, st.Warnings[1].Or)
	assert.Equal(t, []string{"relays: [10.0.0.1, 10.0.0.2, 10.0.0.4, 10.0.1.2, 100.64.0.9]"}, st.Relays[1].Paste, "the others stay believed")

	d.reload(func(o *v4.Options) { o.Match = []v4.MatchKind{v4.MatchMAC} })
	st = d.status()
	require.Len(t, st.Warnings, 1, "nobody asks option 82")
	assert.Equal(t, AnybodyRelays, st.Warnings[0].Kind)

	// A reload with relays that has not all of them.
	few := relays("10.0.0.0/24")
	d.reload(few)
	st = d.status()
	require.Len(t, st.Warnings, 1)
	assert.Equal(t, SourcesUnchecked, st.Warnings[0].Kind)
	assert.Contains(t, st.Warnings[0].Text, "1 address is believed")
	assert.Equal(t, []string{"relays: [10.0.0.0/24, 10.0.1.2]", "check_relay_source: true"}, st.Warnings[0].Paste)
	d.reload(func(o *v4.Options) { few(o); o.CheckRelaySource = line.SourceAny })
	assert.Empty(t, d.status().Warnings, "false is for good")
	assert.Equal(t, 1, d.status().Counts[UnlistedSource].Senders)
	d.reload(func(o *v4.Options) { few(o); o.CheckRelaySource = line.SourceListed })
	assert.Empty(t, d.status().Warnings)
	assert.Equal(t, 1, d.status().Counts[RelaySource].Senders)
}

func TestLog(t *testing.T) {
	d := newDesk(t, func(o *v4.Options) { o.Relays = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")} })
	d.note(2, "10.0.0.1 10.0.0.1 eth0", "10.0.0.1 10.6.0.1 eth0", "10.0.0.2 10.6.0.1 eth0", "10.7.0.1 10.7.0.1 eth1", "10.0.0.1 0.0.0.0 eth1", "eth2", "eth3")
	assert.Equal(t, []string{
		`msg="a relay is believed though dhcp.relays does not list the address that it sends from, because dhcp.check_relay_source is left out" reason=unlisted_source giaddr=10.0.0.1 source=10.6.0.1:67 interface=eth0 paste="relays: [10.0.0.0/24, 10.6.0.1]"`,
		`msg="packets with a relay's address are refused" reason=relay_untrusted giaddr=10.7.0.1 source=10.7.0.1:67 interface=eth1 paste="relays: [10.0.0.0/24, 10.7.0.1]"`,
		`msg="packets with a relay's address are refused" reason=relay_no_source giaddr=10.0.0.1 source=0.0.0.0:67 interface=eth1`,
		`msg="option 82 is believed on an interface only because dhcp.trusted_interfaces is left out" reason=any_switch interface=eth2 paste="trusted_interfaces: [eth2]" or="trusted_interfaces: none"`,
		`msg="option 82 is believed on an interface only because dhcp.trusted_interfaces is left out" reason=any_switch interface=eth3 paste="trusted_interfaces: [eth2, eth3]" or="trusted_interfaces: none"`,
	}, d.logged(), "once for each source and interface")
	d.note(2, "10.0.0.1 10.6.0.1 eth1")
	assert.Len(t, d.logged(), 1, "on another interface")

	for name, change := range map[string]func(*v4.Options){
		"check_relay_source: false": func(o *v4.Options) { relays("10.0.0.0/24")(o); o.CheckRelaySource = line.SourceAny },
		"nobody asks option 82":     func(o *v4.Options) { o.Match = []v4.MatchKind{v4.MatchMAC} },
		"listed": func(o *v4.Options) {
			relays("10.0.0.0/24", "10.6.0.0/24")(o)
			o.TrustedInterfaces = []string{"eth*"}
		},
	} {
		d := newDesk(t, change)
		d.note(1, "10.0.0.1 10.6.0.1 eth0")
		if name != "check_relay_source: false" {
			d.note(1, "eth2")
		}
		assert.Empty(t, d.logged(), name)
	}
}

// A flood of made-up sources does not fill the log, and does not hide another reason.
func TestLogIsBounded(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/24"))
	for i := range 2000 {
		a := fmt.Sprintf("172.16.%d.%d", i>>8, i&255)
		d.note(1, a+" "+a+" eth1")
	}
	require.Len(t, d.logged(), logBurst)
	d.note(1, "10.0.0.1 0.0.0.0 eth1")
	assert.Len(t, d.logged(), 1, "another reason")
	lines := 0
	for i := range 6000 { // ten minutes, with a new one each tenth of a second
		d.now = d.now.Add(replaceEvery)
		a := fmt.Sprintf("172.17.%d.%d", i>>8, i&255)
		d.note(1, a+" "+a+" eth1")
		all := d.logged()
		lines += len(all)
		for _, l := range all {
			assert.Contains(t, l, " more=", "it says that others were not told")
		}
	}
	assert.InDelta(t, 10, lines, 1)
	d.now = d.now.Add(time.Hour)
	d.note(1, "172.18.0.1 172.18.0.1 eth1")
	d.logged()
	d.now = d.now.Add(-24 * time.Hour) // the clock is set back
	d.note(1, "172.18.0.2 172.18.0.2 eth1")
	assert.Len(t, d.logged(), 1)
}

func TestTrim(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/16"))
	for i := range 30 {
		d.note(1, fmt.Sprintf("10.0.0.%d 10.0.0.%d eth0", i, i), fmt.Sprintf("172.16.0.%d 172.16.0.%d eth1", i, i))
	}
	st := d.status()
	require.Len(t, st.Relays, 60)
	for i, s := range st.Relays {
		assert.Equal(t, i < pasteSenders, len(s.Paste) == 1, i)
	}
	st.Trim(25)
	assert.Len(t, st.Relays, 50)
	assert.Equal(t, 10, st.More)
	assert.Equal(t, RelayUntrusted, st.Relays[24].State)
	assert.Equal(t, Relay, st.Relays[25].State)
}

func TestFold(t *testing.T) {
	assert.Equal(t, []string{"relays: []"}, Fold("relays: []", 20))
	assert.Equal(t, []string{"relays: [10.0.0.1,", "  10.0.0.2,", "  10.0.0.3]"}, Fold("relays: [10.0.0.1, 10.0.0.2, 10.0.0.3]", 20))
	assert.Equal(t, []string{"relays: [10.0.0.1]"}, Fold("relays: [10.0.0.1]", 5), "no shorter than it can be")
}

// Whoever was pushed out is no longer known, though it sent a moment ago: its packets are counted.
func TestPushedOutSenderIsCounted(t *testing.T) {
	d := newDesk(t, relays("10.0.0.0/24"))
	for range 4 {
		d.flood(RelayUntrusted.limit()-1, "172.17", "172.17.0.0")
	}
	d.note(3, "172.16.0.0 172.16.0.0 eth1")
	before := d.status().Counts[RelayUntrusted]
	require.Equal(t, RelayUntrusted.limit(), before.Senders)
	d.note(1, "172.18.0.0 172.18.0.0 eth1")
	require.NotContains(t, fmt.Sprint(told(d.status().Relays)), "172.16.0.0", "it sent least")
	d.note(1, "172.16.0.0 172.16.0.0 eth1")
	after := d.status().Counts[RelayUntrusted]
	assert.Equal(t, before.Packets+2, after.Packets)
	assert.Equal(t, before.Missed+4, after.Missed)
}
