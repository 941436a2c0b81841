package config

import (
	"encoding/hex"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// OptionSet is what clients are told beside their address, router and times.
type OptionSet struct {
	DNS            []netip.Addr
	NTP            []netip.Addr
	Domain         string
	Search         []string
	Routes         []Route
	MTU            uint16     // 0: none is told
	NextServer     netip.Addr // siaddr
	ServerName     string     // the header's sname
	BootFile       string     // the header's file
	CaptivePortal  string     // URL
	IPv6OnlyWait   time.Duration
	Timezone       string // name of the TZ database
	TimezonePOSIX  string
	VendorSpecific []SubOption // of option 43
	Vendor         []Vendor    // of option 125
	Options        []Option
}

// Route is a destination of option 121.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Vendor are the sub-options for clients of one vendor (option 125).
type Vendor struct {
	Enterprise uint32
	Options    []SubOption
}

// Option is an extra DHCP option, already encoded.
type Option struct {
	Code   uint8
	Value  []byte
	Always bool // send it also to clients that do not ask for it
}

// SubOption is a part of option 43 or 125, already encoded.
type SubOption struct {
	Code  uint8
	Value []byte
}

// Class is a kind of client and what it is told besides or instead.
type Class struct {
	Name            string
	Match           ClassMatch
	AlwaysBroadcast bool
	OptionSet
}

// ClassMatch says which clients are of a class; all that is given must hold.
type ClassMatch struct {
	VendorClass string // pattern for option 60
	UserClass   string // pattern for option 77
	MACPrefix   [][]byte
	Options     []OptionMatch
}

// OptionMatch asks for an option that the client sends.
type OptionMatch struct {
	Code uint8
	Text string // pattern
	Hex  []byte // the very bytes
}

// optionSetKeys are the keys of every place where an option set is written.
func optionSetKeys(more ...string) []string {
	return append(more, "dns", "ntp", "domain", "search", "routes", "mtu", "next_server", "server_name", "boot_file",
		"captive_portal", "ipv6_only_wait", "timezone", "timezone_posix", "vendor_specific", "vendor", "options")
}

// optionSet reads the keys of optionSetKeys.
func (d *decoder) optionSet(m mapping) OptionSet {
	s := OptionSet{
		DNS:            m.get("dns").ipv4s(),
		NTP:            m.get("ntp").ipv4s(),
		Domain:         m.get("domain").domain(),
		Search:         m.get("search").domains(),
		Routes:         m.get("routes").routes(),
		ServerName:     m.get("server_name").field(63),
		BootFile:       m.get("boot_file").field(127),
		CaptivePortal:  m.get("captive_portal").link(),
		IPv6OnlyWait:   m.get("ipv6_only_wait").duration(0, 0, maxLease).Truncate(time.Second),
		Timezone:       m.get("timezone").field(255),
		TimezonePOSIX:  m.get("timezone_posix").field(255),
		VendorSpecific: d.subOptions(m.get("vendor_specific")),
		Vendor:         d.vendors(m.get("vendor")),
	}
	if mtu := m.get("mtu"); mtu.present() {
		if s.MTU = uint16(mtu.integer(0, 0, 65535)); s.MTU > 0 && s.MTU < 68 {
			mtu.problem("%d; IPv4 needs at least 68, and 0 is none", s.MTU)
		}
	}
	if w := m.get("ipv6_only_wait"); s.IPv6OnlyWait > 0 && s.IPv6OnlyWait < 5*time.Minute {
		w.problem("%s; clients take at least 5m (RFC 8925), and 0s is none", brief(s.IPv6OnlyWait))
	}
	if next := m.get("next_server"); next.present() {
		s.NextServer, _ = next.ipv4()
	}
	used := map[uint8]int{}
	m.get("options").list(func(e value) {
		if o, good := d.option(e, used); good {
			s.Options = append(s.Options, o)
		}
	})
	return s
}

// field reads text of bounded length.
func (v value) field(most int) string {
	s := v.text("")
	if len(s) > most || strings.ContainsRune(s, 0) {
		v.problem("%d bytes; want at most %d, without zero bytes", len(s), most)
		return ""
	}
	return s
}

func (v value) domains() []string {
	var out []string
	v.list(func(e value) {
		switch s := e.domain(); {
		case s == "":
			if t, ok := e.raw("a domain name"); ok && t == "" {
				e.problem("an empty domain name")
			}
		case slices.Contains(out, s):
			e.problem("%s is in the list twice", s)
		default:
			out = append(out, s)
		}
	})
	return out
}

func (v value) routes() []Route {
	var out []Route
	v.list(func(e value) {
		m := e.mapping("to", "via")
		to, via := m.get("to"), m.get("via")
		if !to.present() {
			to.problem("missing; want a destination such as 10.0.0.0/8, or 0.0.0.0/0")
		}
		if !via.present() {
			via.problem("missing; want the router's address, or 0.0.0.0 for on the link")
		}
		p, ok := to.prefix()
		if !ok {
			return
		}
		r := Route{To: p, Via: netip.IPv4Unspecified()}
		if s, _ := via.raw("an IPv4 address"); s != "0.0.0.0" {
			if r.Via, ok = via.ipv4(); !ok {
				return
			}
		}
		if slices.ContainsFunc(out, func(o Route) bool { return o.To == p }) {
			to.problem("%s is in the list twice", p)
			return
		}
		out = append(out, r)
	})
	return out
}

func (v value) link() string {
	s := v.field(255)
	if u, err := url.Parse(s); s != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		v.problem("want a URL such as https://portal.example.net/api (RFC 8910)")
		return ""
	}
	return s
}

func (d *decoder) vendors(v value) []Vendor {
	var out []Vendor
	v.list(func(e value) {
		m := e.mapping("enterprise", "options")
		number := m.get("enterprise")
		if !number.present() {
			number.problem("missing; want the vendor's number in IANA's list of private enterprises")
			return
		}
		n := Vendor{Enterprise: uint32(number.unsigned(32)), Options: d.subOptions(m.get("options"))}
		size := 0
		for _, o := range n.Options {
			size += 2 + len(o.Value)
		}
		switch {
		case size == 0:
			m.get("options").problem("missing; want at least one sub-option")
		case size > 255:
			m.get("options").problem("%d bytes; one vendor's sub-options have 255", size)
		case slices.ContainsFunc(out, func(o Vendor) bool { return o.Enterprise == n.Enterprise }):
			number.problem("%d is in the list twice", n.Enterprise)
		default:
			out = append(out, n)
		}
	})
	return out
}

// subOptions reads what is inside of option 43 or of a vendor's part of 125.
func (d *decoder) subOptions(v value) []SubOption {
	var out []SubOption
	used := map[uint8]int{}
	v.list(func(e value) {
		m := e.mapping("code", "type", "value")
		if code, value, ok := d.encoded(m, used, 255, framing); ok {
			out = append(out, SubOption{code, value})
		}
	})
	return out
}

func (d *decoder) classes(v value) []Class {
	var out []Class
	v.list(func(e value) {
		m := e.mapping(optionSetKeys("name", "match", "always_broadcast")...)
		name := m.get("name")
		c := Class{Name: name.text(""), Match: m.get("match").classMatch(), AlwaysBroadcast: m.get("always_broadcast").boolean(false), OptionSet: d.optionSet(m)}
		switch {
		case !plainKey.MatchString(c.Name):
			name.problem("want a name: letters, digits, _ . -, beginning with a letter")
		case slices.ContainsFunc(out, func(o Class) bool { return o.Name == c.Name }):
			name.problem("%s is in the list twice", c.Name)
		default:
			out = append(out, c)
		}
	})
	return out
}

func (v value) classMatch() ClassMatch {
	m := v.mapping("vendor_class", "user_class", "mac_prefix", "options")
	c := ClassMatch{VendorClass: m.get("vendor_class").pattern(), UserClass: m.get("user_class").pattern()}
	m.get("mac_prefix").list(func(e value) {
		s, _ := e.raw("the first bytes of a MAC such as 00:00:5e")
		if b, err := hex.DecodeString(strings.NewReplacer(":", "", "-", "", ".", "").Replace(s)); err == nil && len(b) > 0 && len(b) <= 6 {
			c.MACPrefix = append(c.MACPrefix, b)
			return
		}
		e.problem("want 1 to 6 first bytes of a MAC such as 00:00:5e, got %q", excerpt(s))
	})
	m.get("options").list(func(e value) {
		o := e.mapping("code", "text", "hex")
		code := o.get("code")
		if !code.present() {
			code.problem("missing; want the number of the option, 1 to 254")
			return
		}
		x := OptionMatch{Code: uint8(code.integer(0, 1, 254)), Text: o.get("text").pattern(), Hex: o.get("hex").hexBytes()}
		if o.get("text").present() && o.get("hex").present() {
			o.get("hex").problem("given beside text; want one of them")
		}
		c.Options = append(c.Options, x)
	})
	if c.VendorClass == "" && c.UserClass == "" && len(c.MACPrefix) == 0 && len(c.Options) == 0 {
		v.problem("every client would be of this class; want vendor_class, user_class, mac_prefix or options")
	}
	return c
}
