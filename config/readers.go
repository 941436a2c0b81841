package config

import (
	"net/netip"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
)

// Reader implements keys.Rules: the closed table of readers that declarations
// name, those of everybody, then by part.
func (l *loader) Reader(name string, k keys.Key) (keys.Reader, bool) {
	if r, ok := l.commonReaders(name); ok {
		return r, true
	}
	if r, ok := l.erpReaders(name, k); ok {
		return r, true
	}
	if r, ok := l.dhcpReaders(name, k); ok {
		return r, true
	}
	return portalReaders(name, k)
}

func (l *loader) commonReaders(name string) (keys.Reader, bool) {
	switch name {
	case "network":
		return keys.Scalar(keys.Matching(`^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`), network), true
	case "host":
		return keys.Scalar(keys.Matching(`^[0-9A-Za-z_.:-]+$`), host), true
	case "hours":
		return keys.Scalar(keys.Matching(`^\s*[0-9]{1,2}:[0-9]{2}\s*-\s*[0-9]{1,2}:[0-9]{2}\s*$`), dayHours), true
	case "customer":
		return keys.Scalar(keys.Shape{"type": []string{"integer", "string"}, "minimum": 1, "pattern": keys.WholePattern}, customer), true
	case "name_server":
		r := keys.Scalar(keys.Matching(`^[0-9A-Fa-f:.\[\]]+$`), nameServer)
		r.Verbatim = true
		return r, true
	case "interface":
		return keys.Scalar(keys.Matching(`^[^/: \t\n]+$`), l.interfaceName), true
	case "garden":
		return keys.Reader{Schema: keys.Shape{"type": "array", "items": keys.Shape{"type": "string"}}.Fixed, Read: l.garden}, true
	case "secret":
		return keys.Later(keys.TextShape()), true
	}
	return keys.Reader{}, false
}

func (l *loader) erpReaders(name string, k keys.Key) (keys.Reader, bool) {
	switch name {
	case "erp_url":
		return keys.Scalar(keys.Matching(`^`+httpPattern+`[^/?#@]+(/[^?#]*)?/api\.php$`), apiURL), true
	case "erp_proxy":
		return keys.Scalar(keys.Matching(`^(environment|none|([Hh][Tt][Tt][Pp][Ss]?|[Ss][Oo][Cc][Kk][Ss]5[Hh]?)://[^/?#@]+/?)$`), erpProxy), true
	case "erp_version":
		return keys.Scalar(keys.Shape{"type": []string{"string", "number"}, "pattern": `^(auto|[0-9]+\.[0-9]+.*)$`}, erpVersion), true
	case "ca_file":
		return keys.Scalar(keys.Matching(`^(/.*)?$`), l.caFile), true
	case "access":
		return keys.Scalar(keys.WordShape(k.Words()), func(v keys.Value) (provision.State, bool) { return stateOf(v, k.Words()) }), true
	case "states":
		return keys.Reader{Schema: statesShape().Fixed, Read: states}, true
	}
	return keys.Reader{}, false
}

func (l *loader) dhcpReaders(name string, k keys.Key) (keys.Reader, bool) {
	switch name {
	case "ipv4_listen":
		return keys.Scalar(keys.Matching(`^`+keys.IPv4Pattern+`:[0-9]{1,5}$`), func(v keys.Value) (netip.AddrPort, bool) { return ipv4Listen(v, k.Like()) }), true
	case "match":
		return keys.Reader{OfList: true, Schema: keys.ListShape(k, matchShape()).Fixed, Read: matchOrder}, true
	case "source_check":
		return keys.Scalar(keys.Shape{"type": "boolean"}, sourceCheck), true
	case "relay":
		return keys.Scalar(keys.Matching(`^(`+line.NoRelay+`|`+line.EveryRelay+`|`+keys.IPv4Pattern+`(/[0-9]{1,2})?)$`), relay), true
	case "vlan_interface":
		return keys.Scalar(keys.Matching(`\{vlan\}`), l.vlanInterface), true
	case "hex":
		return keys.Scalar(hexShape(), hexBytes), true
	case "mac_prefix":
		return keys.Scalar(hexShape(), macPrefix), true
	case "pattern":
		return keys.Scalar(keys.TextShape(), pattern), true
	case "name":
		return keys.Scalar(keys.Matching(keys.PlainName.String()), profileName), true
	case "ready_profile":
		return keys.Later(keys.WordShape(option82.Names())), true
	case "default_profiles":
		return keys.Reader{OfList: true, Schema: keys.ListShape(k, keys.TextShape()).Fixed, Read: l.defaultProfiles}, true
	case "domain":
		return keys.Scalar(keys.TextShape(), domain), true
	case "search":
		return keys.Scalar(keys.TextShape(), searchDomain), true
	case "field":
		return keys.Scalar(fieldShape(k), func(v keys.Value) (string, bool) { return field(v, k.Whole("max")) }), true
	case "link":
		return keys.Scalar(keys.Matching(`^(`+httpPattern+`.+)?$`), func(v keys.Value) (string, bool) { return link(v, k.Whole("max")) }), true
	case "via":
		return keys.Scalar(keys.Matching(`^`+keys.IPv4Pattern+`$`), via), true
	case "enterprise":
		return keys.Scalar(keys.Shape{"type": []string{"integer", "string"}, "minimum": 0, "maximum": 1<<32 - 1, "pattern": keys.WholePattern}, enterprise), true
	case "options":
		return l.optionsReader(true, maxOptionLen, serverOwns), true
	case "sub_options":
		return l.optionsReader(false, 255, framing), true
	case "option_value":
		return keys.Later(keys.Shape{}), true
	case "pool_name":
		return keys.Scalar(keys.Matching(poolNames.String()), poolName), true
	case "range":
		return keys.Scalar(keys.Matching(`^`+keys.IPv4Pattern+`(/[0-9]{1,2}|\s*-\s*`+keys.IPv4Pattern+`)$`), addrRange), true
	}
	return keys.Reader{}, false
}

func portalReaders(name string, k keys.Key) (keys.Reader, bool) {
	switch name {
	case "portal_listen":
		return keys.Scalar(keys.Matching(keys.ListenPattern), portalListen), true
	case "language":
		return keys.Scalar(keys.Matching(`^[a-z]{2,3}$`), language), true
	case "short":
		return keys.Scalar(keys.TextShape(), func(v keys.Value) (string, bool) { return shortText(v, k.Whole("max")) }), true
	case "pay_url":
		return keys.Scalar(keys.Matching(`^(`+httpPattern+`.*)?$`), payURL), true
	case "certificate", "template":
		return keys.Later(keys.Matching(`^(/.*)?$`)), true
	case "portal_url":
		return keys.Later(keys.Matching(`^[Hh][Tt][Tt][Pp][Ss]://[^/?#@]+/?$`)), true
	}
	return keys.Reader{}, false
}

func dayHours(v keys.Value) (syncer.DayHours, bool) {
	s, ok := v.Raw("hours such as 22:00-06:00")
	if !ok {
		return syncer.DayHours{}, false
	}
	h, err := syncer.ParseDayHours(s)
	if err != nil {
		v.Problem("want hours such as 22:00-06:00, got %q", keys.Excerpt(s))
	}
	return h, err == nil
}
