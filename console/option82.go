package console

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// How much of unknown option 82 values is told.
const (
	unknownValues   = 50 // by the control socket
	pageUnknown     = 5  // on the overview page
	unknownMACs     = 5
	unknownReadings = 8
)

// Option82View is what an option 82 says by each profile that can read it, and
// what the running agent would do with it.
type Option82View struct {
	Option82   lease.Hex        `json:"option82"`
	Relay      netip.Addr       `json:"relay,omitzero"`
	SubOptions []line.SubOption `json:"sub_options"`    // every one, as sent
	Readings   []line.Reading   `json:"readings"`       // by the profiles of the configuration and the ready ones
	Now        *WouldView       `json:"now,omitempty"`  // nil: nobody answers DHCP here
	Note       string           `json:"note,omitempty"` // why Now is missing
}

// NewOption82View reads a value by profiles that can read it; snap may be nil.
func NewOption82View(payload []byte, relay netip.Addr, snap *provision.Snapshot, profiles []option82.Profile) (*Option82View, error) {
	readings, err := line.ReadOption82(payload, relay, snap, profiles)
	if err != nil {
		return nil, err
	}
	subs, err := line.SubOptions(payload)
	if err != nil {
		return nil, err
	}
	return &Option82View{Option82: payload, Relay: relay, SubOptions: subs, Readings: readings}, nil
}

// Option82Unknown is an option 82 that led to no port, with what may be done.
type Option82Unknown struct {
	Option82  lease.Hex       `json:"option82"`
	Relay     netip.Addr      `json:"relay,omitzero"`
	Interface string          `json:"interface,omitempty"`
	Outcome   string          `json:"outcome"` // why the newest packet led to no port; its client may have been found otherwise
	Packets   int             `json:"packets"`
	First     time.Time       `json:"first"`
	Last      time.Time       `json:"last"`
	MACs      []provision.MAC `json:"macs"` // of clients, the newest first, at most 5
	Profile   string          `json:"profile"`
	Fault     string          `json:"fault,omitempty"`
	Readings  []line.Reading  `json:"readings"` // the likeliest first
	Advice    string          `json:"advice"`
	Config    string          `json:"config" terminal:"lines"` // lines for the configuration
}

// Option82Unknowns is what "usher option82 suggest" shows.
type Option82Unknowns struct {
	WatchingSince time.Time         `json:"watching_since"`
	Unknown       []Option82Unknown `json:"unknown"` // the most frequent first
	More          int               `json:"more"`    // values left out
}

// option82 answers about one value.
func (d *Deps) option82(payload []byte, relay netip.Addr, mac provision.MAC) (*Option82View, error) {
	v, err := NewOption82View(payload, relay, d.Syncer.Current(), d.profiles())
	if err != nil {
		return nil, err
	}
	if d.DHCP == nil {
		v.Note = "DHCP is switched off (dhcp.enabled)"
		return v, nil
	}
	would := d.wouldOf(dhcpd.Query{MAC: mac, Option82: payload, GIAddr: relay})
	v.Now = &would
	return v, nil
}

// profiles returns those of the configuration, then the ready ones.
func (d *Deps) profiles() []option82.Profile {
	var out []option82.Profile
	if d.DHCP != nil {
		out = d.DHCP.Option82Profiles()
	}
	return append(out, catalogue()...)
}

func catalogue() []option82.Profile {
	var out []option82.Profile
	for _, e := range option82.Catalogue() {
		out = append(out, e.Profile)
	}
	return out
}

// wouldOf asks the server what it would answer.
func (d *Deps) wouldOf(q dhcpd.Query) WouldView {
	a := d.DHCP.Explain(q)
	w := WouldView{
		MAC: q.MAC, Option82: q.Option82, Relay: q.GIAddr, Source: q.Source, VouchedBy: a.VouchedBy.String(), Rule: a.Rule.String(), RuleText: a.Rule.Explain(), Since: a.Since, Untrusted: a.Untrusted, Outcome: a.Outcome.String(), Text: a.Outcome.Explain(),
		Advice: Advice(a.Outcome), MatchedBy: a.MatchedBy, Circuit: a.Circuit, Remote: a.Remote, RelaySays: a.Relay, Profile: a.Profile, Fault: a.Fault,
		Device: a.Device, Port: a.Port, YourIP: a.YourIP, Via: a.Via, Rival: a.Rival, Until: a.Until,
		Interface: q.Interface, VLAN: a.VLAN, ClientID: a.ClientID, Stray: strayWord(a.Stray), StrayText: a.Stray.Explain(), Networks: a.Networks,
	}
	if a.Lease != nil {
		w.Holder = a.Lease.MAC
	}
	return w
}

// unknownOption82 gathers the values of the event log that led to no port.
func (d *Deps) unknownOption82(limit int) Option82Unknowns {
	out := Option82Unknowns{WatchingSince: d.Started, Unknown: []Option82Unknown{}}
	if d.Events == nil {
		return out
	}
	type key struct {
		value, iface string
		relay        netip.Addr
	}
	var all []*Option82Unknown
	found := map[key]*Option82Unknown{}
	for _, e := range d.Events.Find(dhcpd.EventFilter{Lost: true}) {
		if len(e.Option82) == 0 || e.Lost == outcome.Option82Untrusted {
			continue // what is not believed needs no profile
		}
		k := key{string(e.Option82), e.Interface, e.GIAddr}
		u := found[k]
		if u == nil {
			u = &Option82Unknown{Option82: e.Option82, Relay: e.GIAddr, Interface: e.Interface, First: e.Time, MACs: []provision.MAC{}}
			found[k] = u
			all = append(all, u)
		}
		u.Packets++
		if e.Time.After(u.Last) {
			u.Last, u.Outcome = e.Time, e.Lost.String()
		}
		if e.Time.Before(u.First) {
			u.First = e.Time
		}
		if len(u.MACs) < unknownMACs && !slices.Contains(u.MACs, e.MAC) {
			u.MACs = append(u.MACs, e.MAC)
		}
	}
	slices.SortStableFunc(all, func(a, b *Option82Unknown) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), b.Last.Compare(a.Last))
	})
	if len(all) > limit {
		out.More = len(all) - limit
		all = all[:limit]
	}
	for _, u := range all {
		d.suggest(u)
		out.Unknown = append(out.Unknown, *u)
	}
	return out
}

// suggest fills in what the value may mean and what to do.
func (d *Deps) suggest(u *Option82Unknown) {
	readings, err := line.ReadOption82(u.Option82, u.Relay, d.Syncer.Current(), catalogue())
	if err != nil { // not with an outcome after parsing
		readings = nil
	}
	var device provision.DeviceID
	if d.DHCP != nil {
		would := d.wouldOf(dhcpd.Query{MAC: u.MACs[0], Option82: u.Option82, GIAddr: u.Relay})
		u.Profile, u.Fault, device = would.Profile, would.Fault, would.Device
	}
	slices.SortStableFunc(readings, func(a, b line.Reading) int { return cmp.Compare(likelihood(a), likelihood(b)) })
	u.Readings = append([]line.Reading{}, readings[:min(len(readings), unknownReadings)]...)
	u.Advice, u.Config = u.proposal(device)
}

// likelihood ranks a guess, the likeliest 0. A port that the ERP binds says more
// than a known switch. A profile that takes any text says little, and one that
// does not look at the port at all nothing: it would find somebody behind every switch.
func likelihood(r line.Reading) int {
	p, _ := option82.Find(r.Profile)
	switch {
	case p.Layout == option82.LayoutIgnore:
		return 4
	case r.Result == line.Bound:
		return 0
	case r.Device == 0:
		return 3
	case p.Layout == option82.LayoutText && len(p.Templates) == 0:
		return 2
	}
	return 1
}

// proposal words what an operator may do. device is the switch as the profile
// in use found it, zero if it did not.
func (u *Option82Unknown) proposal(device provision.DeviceID) (advice, lines string) {
	if u.Fault == option82.FaultUnit.String() && device != 0 {
		return "A unit beyond the first: say how many ports the ERP counts per unit.",
			u.profileLines(device, cmp.Or(useable(u.Profile), option82.DefaultPort), ", unit_ports: 52")
	}
	var best *line.Reading
	for i := range u.Readings {
		r := &u.Readings[i]
		if r.Profile != u.Profile && likelihood(*r) < 4 && (best == nil || best.Result != line.Bound && r.Result == line.Bound) {
			best = r
		}
	}
	switch {
	case u.Outcome == outcome.UnknownDevice.String():
		return "Give the switch its MAC, management address or name in the ERP, as the packet has it. Or name the port by these bytes.", u.exactLines(device)
	case best != nil && best.Result == line.Bound:
		return fmt.Sprintf("By %s it would be a port with an address of customer %d. If that is the customer at this port, use the profile; an offset by chance finds somebody's port too.",
			best.Profile, best.Subscriber), u.profileLines(cmp.Or(device, best.Device), best.Profile, "")
	case u.Outcome == outcome.UnknownPort.String():
		return "Link the subscriber with this port of the switch in the ERP. If the port is another one on the device, choose the profile that counts so. Or name the port by these bytes.", u.exactLines(device)
	case best != nil:
		return fmt.Sprintf("It looks like %s. Compare the port with the device's before you use it.", best.Profile), u.profileLines(cmp.Or(device, best.Device), best.Profile, "")
	}
	return "No ready profile reads it. Write one (docs/option82.md), or name the port by these bytes.", u.exactLines(device)
}

// useable returns the name if it is a ready profile's.
func useable(name string) string {
	if _, ok := option82.Find(name); ok {
		return name
	}
	return ""
}

func (u *Option82Unknown) profileLines(device provision.DeviceID, use, more string) string {
	name, match := "", ""
	switch {
	case device != 0:
		name, match = fmt.Sprintf("device-%d", device), fmt.Sprintf("device: [%d]", device)
	case u.Relay.IsValid():
		name, match = "relay-"+strings.ReplaceAll(u.Relay.String(), ".", "-"), fmt.Sprintf("giaddr: [%s]", u.Relay)
	default:
		return fmt.Sprintf("dhcp:\n  option82:\n    default: [dlink, ifname, %s]\n", use)
	}
	return fmt.Sprintf("dhcp:\n  option82:\n    profiles:\n      - {name: %s, match: {%s}, use: %s%s}\n", name, match, use, more)
}

// exactLines leave what only a person can know as a word that the check refuses.
func (u *Option82Unknown) exactLines(device provision.DeviceID) string {
	id := "ID"
	if device != 0 {
		id = fmt.Sprint(device)
	}
	return fmt.Sprintf("dhcp:\n  option82:\n    exact:\n      - {value: %q, device: %s, port: PORT}\n", hex.EncodeToString(u.Option82), id)
}

func (c *control) option82(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	payload, err := hex.DecodeString(q.Get("value"))
	if err != nil {
		writeError(w, http.StatusBadRequest, fmt.Errorf("value: want hexadecimal digits: %w", err))
		return
	}
	var relay netip.Addr
	if s := q.Get("giaddr"); s != "" {
		if relay, err = netip.ParseAddr(s); err != nil || !relay.Is4() {
			writeError(w, http.StatusBadRequest, fmt.Errorf("giaddr: want an IPv4 address, got %.60q", s))
			return
		}
	}
	mac, err := provision.ParseMAC(q.Get("mac"))
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	v, err := c.d.option82(payload, relay, mac)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, http.StatusOK, v)
}

func (c *control) unknownOption82(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, c.d.unknownOption82(unknownValues))
}
