package config

import (
	"encoding/hex"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/dhcpd/options"
)

func optionSetTogether(m keys.Mapping, s *options.OptionSet) {
	m.Report(s.Check())
	if w := s.IPv6OnlyWait; w > 0 && w < 5*time.Minute {
		m.Get("ipv6_only_wait").Problem("%s; clients take at least 5m (RFC 8925), and 0s is none", keys.Brief(w))
	}
	for i, e := range m.Elements("routes") {
		to := s.Routes[i].To
		if to.IsValid() && s.Routes[i].Via.IsValid() && slices.ContainsFunc(s.Routes[:i], func(r options.Route) bool { return r.To == to && r.Via.IsValid() }) {
			e.Get("to").Problem("%s is in the list twice", to)
		}
	}
	for i, e := range m.Elements("vendor") {
		vendorTogether(e, s.Vendor[:i], s.Vendor[i])
	}
}

// vendorTogether looks at the sub-options of one vendor; before are those that stand before it.
func vendorTogether(m keys.Mapping, before []options.VendorOptions, v options.VendorOptions) {
	number := m.Get("enterprise")
	if !number.Present() {
		return
	}
	same := func(o options.VendorOptions) bool { return o.Enterprise == v.Enterprise && len(o.Options) > 0 }
	switch {
	case len(v.Options) == 0:
		m.Get("options").Problem("missing; want at least one sub-option")
	case v.Check() != nil:
		m.Report(v.Check())
	case !m.Wrong("enterprise") && slices.ContainsFunc(before, same):
		number.Problem("%d is in the list twice", v.Enterprise)
	}
}

// field reads text of at most most bytes.
func field(v keys.Value, most int) (string, bool) {
	s, ok := v.Text()
	if len(s) > most || strings.ContainsRune(s, 0) {
		v.Problem("%d bytes; want at most %d, without zero bytes", len(s), most)
		return "", false
	}
	return s, ok
}

// searchDomain reads a domain, which may not be empty.
func searchDomain(v keys.Value) (string, bool) {
	s, ok := domain(v)
	if ok && s == "" {
		v.Problem("an empty domain name")
		return "", false
	}
	return s, ok
}

// via reads the address of a router; 0.0.0.0 is on the link.
func via(v keys.Value) (netip.Addr, bool) {
	s, ok := v.Raw("an IPv4 address")
	switch {
	case !ok:
		return netip.Addr{}, false
	case s == "0.0.0.0":
		return netip.IPv4Unspecified(), true
	}
	return v.IPv4()
}

func link(v keys.Value, most int) (string, bool) {
	s, ok := field(v, most)
	if u, err := url.Parse(s); s != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		v.Problem("want a URL such as https://portal.example.net/api (RFC 8910)")
		return "", false
	}
	return s, ok
}

// classesTogether checks the names of classes.
func classesTogether(m keys.Mapping, c *DHCP) {
	for i, e := range m.Elements("classes") {
		name, at := c.Classes[i].Name, e.Get("name")
		switch {
		case !keys.PlainName.MatchString(name):
			at.Problem("want a name: letters, digits, _ . -, beginning with a letter")
		case slices.ContainsFunc(c.Classes[:i], func(o options.Class) bool { return o.Name == name }):
			at.Problem("%s is in the list twice", name)
		}
	}
}

// macPrefix reads the first bytes of a MAC.
func macPrefix(v keys.Value) ([]byte, bool) {
	s, ok := v.Raw("the first bytes of a MAC such as 00:00:5e")
	if !ok {
		return nil, false
	}
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s))
	if err != nil || len(b) == 0 || len(b) > 6 {
		v.Problem("want 1 to 6 first bytes of a MAC such as 00:00:5e, got %q", keys.Excerpt(s))
		return nil, false
	}
	return b, true
}
