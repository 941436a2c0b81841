package check

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// Who is who in these tests: the address is on port 3 of the switch, in VLAN 7.
var (
	decidedAt = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	switchMAC = provision.MAC{0, 0, 0x5e, 0, 0x53, 0xf1}
	known     = provision.MAC{0, 0, 0x5e, 0, 0x53, 0x01} // that the ERP has
	stranger  = provision.MAC{0, 0, 0x5e, 0, 0x53, 0x02}
	address   = netip.MustParseAddr("198.51.100.7")
	far       = netip.MustParseAddr("203.0.113.200") // of a relay that nobody lists
)

// evidence is a packet of a client and the way that it came.
type evidence struct {
	on       string // interface
	gi, from netip.Addr
	option82 bool // of port 3
	id       string
}

// of returns what a source brings.
func (s Source) evidence(t *testing.T, cfg *config.Config) evidence {
	relay := func(text string) netip.Addr {
		if p, err := netip.ParsePrefix(text); err == nil && p.IsSingleIP() {
			return p.Addr()
		} else if err == nil {
			return p.Addr().Next().Next()
		}
		return netip.MustParseAddr(text)
	}
	fitting := strings.NewReplacer("*", "5", "{vlan}", "7")
	switch s.Who {
	case WhoRelay, WhoRelayNet, WhoPlainRelay, WhoPlainNet, WhoInserting:
		return evidence{on: "eth0", gi: relay(s.Which[0]), from: relay(s.Which[0]), option82: true}
	case WhoOtherSource:
		return evidence{on: "eth0", gi: relay(cfg.DHCP.Relays[0].String()), from: far, option82: true}
	case WhoOtherRelay:
		on := "eth0"
		if cfg.DHCP.RelaysShutOut() {
			on = fitting.Replace(cfg.DHCP.Interfaces[0])
		}
		return evidence{on: on, gi: far, from: far, option82: true}
	case WhoTrusted:
		on := "wan0"
		if cfg.DHCP.TrustedInterfaces != nil {
			on = fitting.Replace(s.Which[len(s.Which)-1])
		}
		return evidence{on: on, option82: true}
	case WhoUntrusted:
		return evidence{on: "wan0", option82: true}
	case WhoVLAN:
		if len(s.Which) > 0 {
			return evidence{on: fitting.Replace(s.Which[0])}
		}
	case WhoSubscribers:
		if len(s.Which) > 0 {
			return evidence{on: "eth1"}
		}
	case WhoClientID:
		if len(s.Which) > 0 {
			return evidence{on: "wan0", id: "gateway-7"}
		}
	}
	return evidence{on: "wan0"}
}

// decide is what becomes of a client with e that takes the address, which the ERP gives mac, and of which there is rec.
func (e evidence) decide(t *testing.T, cfg *config.Config, chaddr, mac provision.MAC, rec *lease.Record) (d v4.Decision, _ v4.Trust) {
	t.Helper()
	compiled, err := v4.Compile(cfg.DHCP.Options.Options)
	require.NoError(t, err)
	lines, err := line.Compile(cfg.DHCP.Options.Options.Options)
	require.NoError(t, err)
	snap := provisiontest.Build(t, provision.Input{
		Devices:     []provision.Device{{ID: 1, Name: "sw1", MAC: switchMAC, IP: netip.MustParseAddr("203.0.113.1")}},
		Subscribers: []provision.Subscriber{{ID: 1, State: provision.StateActive}},
		Lines:       []provision.Line{{Subscriber: 1, Addresses: provision.Hosts4(address), MAC: mac, Device: 1, Port: 3, VLAN: 7}},
	})
	leases := lease.New()
	if rec != nil {
		leases.Store(*rec)
	}
	q := wire.Query{Type: wire.Request, MAC: chaddr, GIAddr: e.gi, Options: []wire.Option{
		{Code: wire.OptRequestedIP, Value: address.AsSlice()}, {Code: wire.OptServerID, Value: netip.MustParseAddr("192.0.2.1").AsSlice()},
	}}
	if e.option82 {
		q.Option82 = append([]byte{1, 6, 0, 4, 0, 7, 0, 3, 2, 8, 0, 6}, switchMAC[:]...)
	}
	if e.id != "" {
		q.Options = append(q.Options, wire.Option{Code: wire.OptClientID, Value: []byte(e.id)})
	}
	r := v4.Request{Served: true, OwnID: true, On: &provision.Interface{Index: 9, Name: e.on, Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}}, Ifindex: 9}
	r.P.Read(q.Append(nil))
	r.P.From, r.P.Ingress = netip.AddrPortFrom(e.from, 67), lines.Ingress(e.on)
	v4.Judge(&r, snap, compiled)
	v4.Decide(&d, decidedAt, &r, snap, leases, nil, compiled)
	return d, r.Trust
}

// held is a lease of the address by somebody.
func held(mac provision.MAC) *lease.Record {
	return &lease.Record{
		IP: address, MAC: mac, Subscriber: 1, Device: 1, Port: 3, State: lease.StateBound,
		Start: decidedAt.Add(-48 * time.Hour), Renewed: decidedAt.Add(-50 * time.Minute), Expires: decidedAt.Add(10 * time.Minute),
	}
}

// The table says what the server does: each row is tried with a packet that brings this evidence and no other.
func TestTableAgreesWithDecisions(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	tried := map[string]int{}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		require.NoError(t, err)
		cfg, err := config.Load(write(t, string(text)))
		require.NoError(t, err)
		if !cfg.DHCP.Enabled {
			continue
		}
		sources, _ := Believed(cfg, testHost())
		for _, s := range sources {
			if s.Who == WhoARP || s.Who == WhoQuery || s.Who == WhoMAC {
				continue // no evidence of a line, which alone takes something over
			}
			t.Run(filepath.Base(in)+"/"+s.Who, func(t *testing.T) {
				tried[fmt.Sprint(s.Who, s.TellsLine, s.TellsWire, s.TakesLease, s.WritesERP)]++
				e := s.evidence(t, cfg)
				d, trust := e.decide(t, cfg, stranger, provision.MAC{}, nil)
				line := d.Match.By&(v4.MatchOption82|v4.MatchVLAN) != 0
				if s.TakesLease == Partly { // the ERP has another MAC than none
					d, _ = e.decide(t, cfg, known, known, nil)
					line = d.Match.By&(v4.MatchOption82|v4.MatchVLAN) != 0
				}
				assert.Equal(t, s.TellsLine == Yes, line, "tells the line")
				if e.gi.IsValid() {
					assert.Equal(t, s.TellsWire == Yes, trust.Refused == 0, "passes for a relay: %s", trust.Refused)
				}

				d, _ = e.decide(t, cfg, stranger, known, held(known))
				takes := d.Outcome == outcome.Ack && d.YourIP == address
				dk, _ := e.decide(t, cfg, known, known, held(stranger))
				switch s.TakesLease {
				case Yes:
					if cfg.DHCP.MACChange != v4.MACRefuse {
						assert.True(t, takes, "takes over the lease: %s", d.Outcome)
					}
				case Partly:
					assert.False(t, takes, "takes over the lease: %s", d.Outcome)
					assert.True(t, dk.Outcome == outcome.Ack && dk.YourIP == address, "with the ERP's MAC: %s", dk.Outcome)
				default:
					assert.False(t, takes, "takes over the lease: %s", d.Outcome)
				}
				writes := d.Report && cfg.Reports.Enabled
				assert.Equal(t, s.WritesERP == Yes, writes, "writes another MAC")
				d, _ = e.decide(t, cfg, stranger, provision.MAC{}, nil)
				writes = d.Report && cfg.Reports.Enabled
				assert.Equal(t, s.WritesERP != No, writes && d.Outcome == outcome.Ack, "writes the first MAC: %s", d.Outcome)
			})
		}
	}
	assert.GreaterOrEqual(t, len(tried), 14, "the table is worth nothing if its rows are all alike: %v", tried)
}

// A MAC finds its address, tells the ERP nothing new, and takes from nobody what he has.
func TestMACTakesNothing(t *testing.T) {
	cfg, err := config.Load(write(t, head+"dhcp: {relays: [192.0.2.7], check_relay_source: true, option82_relays: all, trusted_interfaces: none, subnets: [{prefix: 198.51.100.0/24}]}\n"))
	require.NoError(t, err)
	e := evidence{on: "eth1"}
	d, _ := e.decide(t, cfg, known, known, nil)
	assert.Equal(t, outcome.Ack, d.Outcome)
	assert.False(t, d.Report)
	d, _ = e.decide(t, cfg, known, known, held(stranger))
	assert.NotEqual(t, outcome.Ack, d.Outcome)
	d, _ = e.decide(t, cfg, stranger, known, held(known))
	assert.NotEqual(t, outcome.Ack, d.Outcome)
}

// With client_key: client_id whoever sends the identifier of a lease is its client, as the table says.
func TestIdentifierIsTheClient(t *testing.T) {
	for clientKey, want := range map[string]Say{"mac": No, "client_id": Partly} {
		cfg, err := config.Load(write(t, head+"dhcp: {relays: [192.0.2.7], check_relay_source: true, option82_relays: all, trusted_interfaces: none, match: [client_id, mac],\n"+
			"  client_key: "+clientKey+", client_ids: [{text: gateway-7, ip: 198.51.100.7}], subnets: [{prefix: 198.51.100.0/24}]}\n"))
		require.NoError(t, err)
		rec := held(known)
		rec.ClientID, rec.Device, rec.Port, rec.Ifindex = []byte("gateway-7"), 0, 0, 9
		e := evidence{on: "eth1", id: "gateway-7"}
		d, _ := e.decide(t, cfg, stranger, known, rec)
		assert.Equal(t, want == Partly, d.Outcome == outcome.Ack, "%s: %s", clientKey, d.Outcome)
		sources, _ := Believed(cfg, nil)
		for _, s := range sources {
			if s.Who == WhoClientID {
				assert.Equal(t, want, s.TakesLease)
			}
		}
	}
}
