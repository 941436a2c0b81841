package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/provision"
)

// The lists of the file that the table tells of.
const (
	keyRelays      = "dhcp.relays"
	keySource      = "dhcp.check_relay_source"
	keyInserting   = "dhcp.option82_relays"
	keyTrusted     = "dhcp.trusted_interfaces"
	keyVLANs       = "dhcp.vlan_interfaces"
	keySubscribers = "dhcp.subscriber_interfaces"
	keyMatch       = "dhcp.match"
	keyClientIDs   = "dhcp.client_ids"
	keyNeighbours  = "neighbours.interfaces"
	keyQueries     = "dhcp.leasequery.from"
)

// Say is what the word of a source is good for.
type Say string

// The words.
const (
	No     Say = "no"
	Partly Say = "partly" // Note says how far
	Yes    Say = "yes"
)

// Source is one source of evidence, and what is believed of it.
type Source struct {
	Who        string   `json:"who"` // one of the names below
	Key        string   `json:"key"` // of the configuration
	Which      []string `json:"which"`
	Now        []string `json:"now,omitempty"`
	TellsLine  Say      `json:"tells_line"`  // on which port or in which VLAN a client is
	TellsWire  Say      `json:"tells_wire"`  // in which networks it is
	TakesLease Say      `json:"takes_lease"` // its client gets an address that another client has leased
	WritesERP  Say      `json:"writes_erp"`  // the MAC is reported
	Note       string   `json:"note,omitempty"`
}

// The names of sources.
const (
	WhoRelay       = "relay"            // listed as one address
	WhoRelayNet    = "relay network"    // listed as a prefix
	WhoPlainRelay  = "plain relay"      // listed, and its option 82 is left out of account
	WhoPlainNet    = "plain network"    // likewise, but for relays in it that are listed for their option 82
	WhoInserting   = "inserting relay"  // of option82_relays where no relays are listed
	WhoOtherSource = "other source"     // a listed giaddr from an address that is not listed
	WhoOtherRelay  = "other relay"      // a giaddr that is not listed
	WhoTrusted     = "trusted"          // an interface of trusted_interfaces
	WhoUntrusted   = "other option 82"  // on another interface
	WhoVLAN        = "VLAN interface"   //
	WhoSubscribers = "subscriber wires" //
	WhoMAC         = "client's MAC"     //
	WhoClientID    = "client identifier"
	WhoARP         = "ARP"
	WhoQuery       = "leasequery node"
)

// Believed returns what the configuration believes from whom on a host, in the order of the decision, and
// what holds for all of them.
func Believed(cfg *config.Config, host []provision.Interface) (sources []Source, notes []string) {
	b := believer{cfg: cfg, host: host, erp: Yes}
	switch {
	case !cfg.Reports.Enabled:
		b.erp = No
		notes = append(notes, "nothing is written to the ERP: reports.enabled is false")
	case cfg.DHCP.Enabled && cfg.DHCP.MACChange == v4.MACRefuse:
		b.erp = Partly
		notes = append(notes, "only the first MAC of an address is written to the ERP: dhcp.mac_change is refuse")
	}
	if !cfg.DHCP.Enabled {
		return said([]Source{b.arp()}), append(notes, "dhcp.enabled is false: no packet of clients or relays is looked at")
	}
	sources = slices.Concat(b.relays(), b.others(), b.switches(), []Source{b.vlans(), b.subscribers(), b.mac(), b.clientIDs(), b.arp(), b.queries()})
	if n := b.netless(); len(n) > 0 {
		notes = append(notes, "in no subnet, so any network is taken to be behind them: relay "+strings.Join(n, ", "))
	}
	return said(sources), notes
}

// maxNamed is how many relays a note names.
const maxNamed = 2

// netless are relays, listed as one address, that are in no served subnet.
func (b *believer) netless() []string {
	var out []string
	for _, p := range b.cfg.DHCP.Relays {
		if !p.IsSingleIP() || slices.ContainsFunc(b.cfg.DHCP.Subnets, func(n v4.Subnet) bool { return n.Prefix.Contains(p.Addr()) }) {
			continue
		}
		if len(out) == maxNamed {
			return append(out, "and others")
		}
		out = append(out, p.Addr().String())
	}
	return out
}

// said puts no where nothing is said.
func said(sources []Source) []Source {
	for i := range sources {
		s := &sources[i]
		for _, x := range []*Say{&s.TellsLine, &s.TellsWire, &s.TakesLease, &s.WritesERP} {
			*x = cmp.Or(*x, No)
		}
		if s.Which == nil {
			s.Which = []string{}
		}
	}
	return sources
}

// believer makes the rows.
type believer struct {
	cfg  *config.Config
	host []provision.Interface
	erp  Say // what may be written at most
}

// line fills in what the word of a line, told by a way of dhcp.match, is good for.
func (b *believer) line(s Source, way v4.MatchKind) Source {
	c := &b.cfg.DHCP
	alone := slices.ContainsFunc(c.Match, func(m v4.MatchKind) bool { return m&way != 0 && m&v4.MatchMAC == 0 })
	switch {
	case alone:
		s.TellsLine, s.TakesLease, s.WritesERP = Yes, Yes, b.erp
	case c.Matches(way):
		s.TellsLine, s.TakesLease = Yes, Partly
		s.Note = join("with the MAC that the ERP has for the address only", s.Note)
	default:
		s.Note = join(fmt.Sprintf("dhcp.match has no %s", way), s.Note)
	}
	return s
}

// What is said of the option 82 of relays.
const (
	noInfo  = "option 82 is echoed and left out of account: a client may have written it"
	anyInfo = "option 82 with a warning: the file does not say whose, and a client may have written it"
)

// relays are those that are listed: first those whose option 82 is believed, too.
func (b *believer) relays() []Source {
	c := &b.cfg.DHCP
	var believed, plain []netip.Prefix
	for _, p := range c.Relays {
		if b.inserts(p) {
			believed = append(believed, p)
			continue
		}
		plain = append(plain, p)
		for _, s := range c.Option82Relays {
			if q, err := line.ParseRelay(s); err == nil && p.Bits() < q.Bits() && p.Contains(q.Addr()) {
				believed = append(believed, q)
			}
		}
	}
	const alone = "with the address of a subscriber too; on an interface of subscribers only from its network"
	const nets = "refused: from or for an address that the ERP binds or a pool has; on an interface of subscribers"
	var out []Source
	row := func(who string, which []string, note string) {
		if which != nil {
			out = append(out, b.line(Source{Who: who, Key: keyRelays, Which: which, TellsWire: Yes, Note: join(b.unsaidInfo(), note)}, v4.MatchOption82))
		}
	}
	single, wide, covered := b.apart(believed)
	row(WhoRelay, single, alone)
	row(WhoRelayNet, wide, join(nets, covered))
	single, wide, covered = b.apart(plain)
	borrowed := ""
	if len(believed) > 0 {
		borrowed = "refused: with the giaddr of a relay above"
	}
	if single != nil {
		out = append(out, Source{Who: WhoPlainRelay, Key: keyInserting, Which: single, TellsWire: Yes, Note: join(noInfo, borrowed, alone)})
	}
	if wide != nil {
		out = append(out, Source{Who: WhoPlainNet, Key: keyInserting, Which: wide, TellsWire: Yes, Note: join(noInfo, borrowed, nets, covered)})
	}
	return out
}

// apart writes prefixes of relays, single addresses and networks, and says which subscribers are in those.
func (b *believer) apart(all []netip.Prefix) (single, nets []string, covered string) {
	var in []string
	for _, p := range all {
		if p.IsSingleIP() {
			single = append(single, p.Addr().String())
			continue
		}
		nets = append(nets, p.String())
		for _, n := range b.cfg.DHCP.Subnets {
			if n.Prefix.Overlaps(p) && !slices.Contains(in, n.Prefix.String()) {
				in = append(in, n.Prefix.String())
			}
		}
	}
	if in != nil {
		covered = "there are subscribers in them: " + strings.Join(in, ", ")
	}
	return single, nets, covered
}

// says reports whether dhcp.option82_relays is a word.
func (b *believer) says(word string) bool {
	return slices.Equal(b.cfg.DHCP.Option82Relays, []string{word})
}

// inserts reports whether the option 82 of all relays of a prefix is believed.
func (b *believer) inserts(p netip.Prefix) bool {
	c := &b.cfg.DHCP
	return len(c.Option82Relays) == 0 || b.says(line.EveryRelay) || slices.ContainsFunc(c.Option82Relays, func(s string) bool {
		q, err := line.ParseRelay(s)
		return err == nil && q.Bits() <= p.Bits() && q.Contains(p.Addr())
	})
}

// unsaidInfo is what is to be said where dhcp.option82_relays is left out.
func (b *believer) unsaidInfo() string {
	if len(b.cfg.DHCP.Option82Relays) == 0 && b.cfg.DHCP.Matches(v4.MatchOption82) {
		return anyInfo
	}
	return ""
}

// others are relays and their addresses that are not listed.
func (b *believer) others() []Source {
	c := &b.cfg.DHCP
	const bounds = "refused: from 0.0.0.0 or this host; from or for an address that the ERP binds or a pool has; on an interface of subscribers"
	switch {
	case c.RelaysShutOut():
		return []Source{{Who: WhoOtherRelay, Key: keyRelays, Which: []string{"any address"}, Note: "refused: all interfaces are those of subscribers"}}
	case len(c.Relays) == 0:
		other := Source{Who: WhoOtherRelay, Key: keyRelays, Which: []string{"any address"}, TellsWire: Yes, Note: join(b.unsaidInfo(), bounds)}
		switch {
		case len(c.Option82Relays) == 0 || b.says(line.EveryRelay):
			return []Source{b.line(other, v4.MatchOption82)}
		case b.says(line.NoRelay):
			other.Note = join(noInfo, bounds)
			return []Source{other}
		}
		other.Which, other.Note = []string{"any other address"}, join(noInfo, bounds)
		return []Source{b.line(Source{Who: WhoInserting, Key: keyInserting, Which: c.Option82Relays, TellsWire: Yes,
			Note: join("whoever writes it as giaddr", bounds)}, v4.MatchOption82), other}
	}
	source := Source{Who: WhoOtherSource, Key: keySource, Which: []string{"an address that is not listed, giaddr is"}}
	switch c.CheckRelaySource {
	case line.SourceListed:
		source.Note = "refused: relay_source"
	case line.SourceAny:
		source.TellsWire, source.Note = Yes, bounds
		source = b.unlisted(source)
	default:
		source.TellsWire, source.Note = Yes, join("with a warning, for check_relay_source is left out", bounds)
		source = b.unlisted(source)
	}
	return []Source{source, {Who: WhoOtherRelay, Key: keyRelays, Which: []string{"giaddr is not listed"}, Note: "refused: relay_untrusted"}}
}

// unlisted fills in what the word of a listed giaddr from an address that is not listed is good for.
func (b *believer) unlisted(s Source) Source {
	c := &b.cfg.DHCP
	switch {
	case b.says(line.NoRelay):
		s.Note = join(noInfo, s.Note)
		return s
	case slices.ContainsFunc(c.Relays, func(p netip.Prefix) bool { return !b.inserts(p) }):
		s.Note = join("option 82 if "+keyInserting+" has giaddr", s.Note)
	default:
		s.Note = join(b.unsaidInfo(), s.Note)
	}
	return b.line(s, v4.MatchOption82)
}

// switches insert option 82 and are no relays.
func (b *believer) switches() []Source {
	const echoed = "option 82 is echoed and left out of account"
	c := &b.cfg.DHCP
	trusted := c.TrustedInterfaces
	switch {
	case !c.Matches(v4.MatchOption82), slices.Equal(trusted, []string{line.NoInterface}):
		s := Source{Who: WhoUntrusted, Key: keyTrusted, Which: []string{"every interface"}, TellsWire: Yes, Note: echoed}
		if !c.Matches(v4.MatchOption82) {
			s.Note = "dhcp.match has no option82"
		}
		return []Source{s}
	case len(trusted) == 0:
		return []Source{b.line(Source{Who: WhoTrusted, Key: keyTrusted, Which: []string{"every interface"}, TellsWire: Yes,
			Note: "with a warning: the file does not say where, and a client may have written it"}, v4.MatchOption82)}
	}
	return []Source{
		b.line(Source{Who: WhoTrusted, Key: keyTrusted, Which: trusted, Now: fits(b.cfg, b.host, keyTrusted), TellsWire: Yes,
			Note: "a switch there must drop option 82 of clients"}, v4.MatchOption82),
		{Who: WhoUntrusted, Key: keyTrusted, Which: []string{"every other interface"}, TellsWire: Yes, Note: echoed},
	}
}

func (b *believer) vlans() Source {
	s := Source{Who: WhoVLAN, Key: keyVLANs, Which: b.cfg.DHCP.VLANInterfaces, Now: fits(b.cfg, b.host, keyVLANs)}
	if len(s.Which) == 0 {
		s.Note = "none named"
		return s
	}
	s.TellsWire, s.Note = Yes, "no relay is there but one that is listed as one address"
	return b.line(s, v4.MatchVLAN)
}

func (b *believer) subscribers() Source {
	s := Source{Who: WhoSubscribers, Key: keySubscribers, Which: b.cfg.DHCP.SubscriberInterfaces, Now: fits(b.cfg, b.host, keySubscribers)}
	if len(s.Which) == 0 {
		s.Note = "none named: a relay may be on every interface but those of a VLAN"
		return s
	}
	s.TellsWire, s.Note = Yes, "no relay is there but one that is listed as one address"
	return s
}

func (b *believer) mac() Source {
	c := &b.cfg.DHCP
	s := Source{Who: WhoMAC, Key: keyMatch, Which: []string{"anybody's"}}
	switch {
	case slices.Contains(c.Match, v4.MatchMAC):
		s.Note = "finds the address that the ERP has with it, if no other client has leased it"
	case c.Matches(v4.MatchMAC):
		s.Note = "counts together with what " + keyMatch + " joins it to"
	default:
		s.Note = "dhcp.match has no mac"
	}
	return s
}

func (b *believer) clientIDs() Source {
	c := &b.cfg.DHCP
	s := Source{Who: WhoClientID, Key: keyClientIDs}
	switch n := len(c.ClientIDs); {
	case !c.Matches(v4.MatchClientID):
		s.Note = "dhcp.match has no client_id"
	case n == 0:
		s.Which, s.Note = []string{"anybody's"}, "one that is a MAC finds what the MAC finds"
	default:
		s.Which = []string{fmt.Sprintf("%d that are listed", n)}
		s.Note = "finds its address, if no other client has leased it; others find what the MAC in them finds"
		if b.erp != No {
			s.WritesERP = Partly
			s.Note = join(s.Note, "the MAC is written if the ERP has none and expects the address on that wire")
		}
	}
	if c.ClientKey == v4.ClientKeyID {
		s.TakesLease = Partly
		s.Note = join(s.Note, "dhcp.client_key is client_id: whoever sends that of a lease is its client")
	}
	return s
}

func (b *believer) arp() Source {
	c := &b.cfg.Neighbours
	s := Source{Who: WhoARP, Key: keyNeighbours}
	if !c.Enabled {
		s.Note = "neighbours.enabled is false"
		return s
	}
	s.Which, s.Now = c.Interfaces, fits(b.cfg, b.host, keyNeighbours)
	s.Note = "of an address that the ERP binds there and no client has leased"
	if b.erp != No {
		s.WritesERP = Partly
	}
	return s
}

func (b *believer) queries() Source {
	s := Source{Who: WhoQuery, Key: keyQueries, Note: "are told who has an address, and tell nothing"}
	for _, p := range b.cfg.DHCP.LeaseQuery.From {
		s.Which = append(s.Which, short(p))
	}
	if s.Which == nil {
		s.Note = "none named: nobody is answered"
	}
	return s
}

// short writes the prefix of one address as that.
func short(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), "; ")
}
