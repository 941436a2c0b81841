package options

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/usher-agent/usher/dhcpd/wire"
)

// OptionSet is what clients are told beside their address, router and times. Zero
// values say nothing. Sets are laid upon each other: all clients', the subnet's
// and the class's; a later one replaces what an earlier one has under the same code.
type OptionSet struct {
	// Name servers (option 6) and time servers (option 42).
	DNS []netip.Addr `cfg:"dns" unique:"true" example:"[192.0.2.53, 192.0.2.54]"`
	NTP []netip.Addr `cfg:"ntp" unique:"true"`

	// Domain name (option 15) and domains to search (option 119). Empty: none.
	Domain string   `cfg:"domain" read:"domain" default:""`
	Search []string `cfg:"search" read:"search" unique:"true"` // RFC 3397

	// Routes (option 121, and 249 for clients that ask for that; example); via
	// 0.0.0.0 is on the link. Clients that take them do not look at the gateway, so
	// the default route is added to them unless it is given here.
	Routes []Route `cfg:"routes" example:"- to: 10.0.0.0/8\n  via: 198.51.100.2"` // RFC 3442

	// Largest packet (option 26), from 68. 0: none is told.
	MTU uint16 `cfg:"mtu" default:"0" min:"0" max:"65535"`

	// For clients that boot from the network: the header's siaddr, sname and file.
	NextServer netip.Addr `cfg:"next_server"`
	ServerName string     `cfg:"server_name" read:"field" max:"63" default:""`
	BootFile   string     `cfg:"boot_file" read:"field" max:"127" default:""`

	// URL of the captive portal's API (option 114). Empty: none.
	CaptivePortal string `cfg:"captive_portal" read:"link" max:"255" default:""` // RFC 8910

	// How long a host that can do without IPv4 stays without it (option 108), 5m or
	// more; only those get it that ask. 0s: none.
	IPv6OnlyWait time.Duration `cfg:"ipv6_only_wait" read:"seconds" default:"0s" min:"0s" max:"8760h"` // RFC 8925

	// Time zone by name, such as Europe/Vienna (option 101), and by POSIX rule, such
	// as CET-1CEST,M3.5.0,M10.5.0/3 (option 100). Empty: none.
	TZDatabase string `cfg:"timezone" read:"field" max:"255" default:""` // RFC 4833
	TZPOSIX    string `cfg:"timezone_posix" read:"field" max:"255" default:""`

	// Sub-options of option 43 (example); type as in options below.
	VendorSpecific []Option `cfg:"vendor_specific" read:"sub_options" example:"- code: 1\n  type: string\n  value: https://acs.example.net/"`

	// Sub-options by vendor (option 125; example), the number is from IANA's list of
	// private enterprises. A client that says whose it is (124, 125) gets its vendor's only.
	Vendor []VendorOptions `cfg:"vendor" example:"- enterprise: 3561\n  options:\n    - code: 11\n      type: string\n      value: https://acs.example.net/"` // RFC 3925

	// Further options (example). type is one of ip, ips, string, hex, uint8,
	// uint16, uint32, bool. Codes that the server fills itself are refused. More
	// than 255 bytes go out in parts (RFC 3396). always: send it also to clients
	// whose parameter request list lacks it.
	Options []Option `cfg:"options" read:"options" example:"- code: 26\n  type: uint16\n  value: 1500\n  always: false"` // already encoded; these replace what the fields above say
}

// Check reports what no client would take, as key: reason.
func (o *OptionSet) Check() error {
	if o.MTU > 0 && o.MTU < 68 {
		return fmt.Errorf("mtu: %d; IPv4 needs at least 68, and 0 is none", o.MTU)
	}
	return nil
}

// Route is one destination of option 121.
type Route struct {
	To  netip.Prefix `cfg:"to" required:"a destination such as 10.0.0.0/8, or 0.0.0.0/0"`
	Via netip.Addr   `cfg:"via" read:"via" required:"the router's address, or 0.0.0.0 for on the link"` // 0.0.0.0: on the link
}

// VendorOptions are the sub-options of one vendor (IANA's private enterprise
// numbers). A client that says whose it is by option 124 or 125 gets only its own.
type VendorOptions struct {
	Enterprise uint32   `cfg:"enterprise" read:"enterprise" required:"the vendor's number in IANA's list of private enterprises"`
	Options    []Option `cfg:"options" read:"sub_options"`
}

// Check reports sub-options that one vendor has no room for, as key: reason.
func (v *VendorOptions) Check() error {
	size := 0
	for _, o := range v.Options {
		size += 2 + len(o.Value)
	}
	if size > 255 {
		return fmt.Errorf("options: %d bytes; one vendor's sub-options have 255", size)
	}
	return nil
}

// Option is an extra option or sub-option, already encoded. One whose code the
// server fills itself in a subnet (mask, router, DNS, ...) replaces that.
type Option struct {
	Code   uint8
	Value  []byte
	Always bool // send it also to clients whose parameter list (option 55) lacks it
}

// Sets are what the clients of one network are told, by their class.
type Sets []*wire.OptionSet

// Compile lays out what the clients of a network are told: mask and gateway,
// which may be invalid, then layers in their order, then each class.
func Compile(prefix netip.Prefix, gateway netip.Addr, classes Classes, layers ...OptionSet) (Sets, error) {
	one := func(layers []OptionSet) (*wire.OptionSet, error) {
		l := optionList{gateway: gateway}
		l.set(wire.OptSubnetMask, binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-prefix.Bits())), false)
		if gateway.IsValid() {
			l.set(wire.OptRouter, gateway.AsSlice(), false)
		}
		for _, o := range layers {
			if err := l.lay(o); err != nil {
				return nil, err
			}
		}
		return l.compile()
	}
	plain, err := one(layers)
	if err != nil {
		return nil, err
	}
	t := Sets{plain}
	for _, c := range classes {
		set, err := one(append(slices.Clone(layers), c.told))
		if err != nil {
			return nil, fmt.Errorf("class %s: %w", c.name, err)
		}
		t = append(t, set)
	}
	return t, nil
}

// optionList collects options; a later one replaces an earlier one of its code.
type optionList struct {
	gateway netip.Addr
	list    []Option
	vendors []VendorOptions
	boot    wire.Boot
}

func (l *optionList) set(code uint8, value []byte, always bool) {
	o := Option{code, value, always}
	if i := slices.IndexFunc(l.list, func(o Option) bool { return o.Code == code }); i >= 0 {
		l.list[i] = o
		return
	}
	l.list = append(l.list, o)
}

func (l *optionList) lay(o OptionSet) error {
	var errs []error
	add := func(code uint8, value []byte, err error) {
		if err != nil {
			errs = append(errs, err)
		} else if len(value) > 0 {
			l.set(code, value, false)
		}
	}
	addrs, err := encodeAddrs("dns", o.DNS)
	add(wire.OptDNS, addrs, err)
	addrs, err = encodeAddrs("ntp", o.NTP)
	add(wire.OptNTP, addrs, err)
	add(wire.OptDomainName, []byte(o.Domain), nil)
	search, err := encodeSearch(o.Search)
	add(wire.OptDomainSearch, search, err)
	routes, err := encodeRoutes(o.Routes, l.gateway)
	add(wire.OptClasslessRoutes, routes, err)
	if o.MTU != 0 {
		add(wire.OptMTU, binary.BigEndian.AppendUint16(nil, o.MTU), o.Check())
	}
	add(wire.OptCaptivePortal, []byte(o.CaptivePortal), nil)
	if s := o.IPv6OnlyWait / time.Second; o.IPv6OnlyWait != 0 {
		add(wire.OptIPv6OnlyWait, binary.BigEndian.AppendUint32(nil, uint32(s)), errIf(s < 1 || s > math.MaxUint32, "IPv6-only wait %v: out of range", o.IPv6OnlyWait))
	}
	add(wire.OptTimezone, []byte(o.TZDatabase), nil)
	add(wire.OptPOSIXTimezone, []byte(o.TZPOSIX), nil)
	sub, err := encodeSubOptions(o.VendorSpecific)
	add(wire.OptVendorSpecific, sub, err)
	for _, v := range o.Vendor {
		l.vendors = slices.DeleteFunc(l.vendors, func(x VendorOptions) bool { return x.Enterprise == v.Enterprise })
		l.vendors = append(l.vendors, v)
	}
	own := map[uint8]bool{}
	for _, x := range o.Options {
		if own[x.Code] {
			errs = append(errs, fmt.Errorf("option %d: given twice", x.Code))
		}
		own[x.Code] = true
		l.set(x.Code, x.Value, x.Always)
	}
	if o.NextServer.IsValid() {
		l.boot.NextServer = o.NextServer
	}
	if o.ServerName != "" {
		l.boot.ServerName = o.ServerName
	}
	if o.BootFile != "" {
		l.boot.File = o.BootFile
	}
	return errors.Join(errs...)
}

func errIf(wrong bool, format string, args ...any) error {
	if wrong {
		return fmt.Errorf(format, args...)
	}
	return nil
}

func (l *optionList) compile() (*wire.OptionSet, error) {
	vendors, err := encodeVendors(l.vendors)
	if err != nil {
		return nil, err
	}
	var out []wire.Option
	var always []uint8
	for _, o := range l.list {
		out = append(out, wire.Option{Code: o.Code, Value: o.Value})
		if o.Always {
			always = append(always, o.Code)
		}
	}
	if len(vendors) > 0 {
		out = append(out, wire.Option{Code: wire.OptVendorIdentifying, Value: vendors})
	}
	has := func(code uint8) int { return slices.IndexFunc(out, func(o wire.Option) bool { return o.Code == code }) }
	if i := has(wire.OptClasslessRoutes); i >= 0 && has(wire.OptMicrosoftRoutes) < 0 {
		out = append(out, wire.Option{Code: wire.OptMicrosoftRoutes, Value: out[i].Value})
	}
	set, err := wire.NewOptionSet(out, always...)
	if err != nil || l.boot == (wire.Boot{}) {
		return set, err
	}
	return set.WithBoot(l.boot)
}

func encodeAddrs(name string, addrs []netip.Addr) ([]byte, error) {
	var out []byte
	for _, a := range addrs {
		if !a.Is4() {
			return nil, fmt.Errorf("%s %v: want an IPv4 address", name, a)
		}
		out = append(out, a.AsSlice()...)
	}
	return out, nil
}

// encodeRoutes returns option 121. A client that takes it does not look at the
// router option (RFC 3442), so the gateway is added as the default route unless one is given.
func encodeRoutes(routes []Route, gateway netip.Addr) ([]byte, error) {
	if len(routes) == 0 {
		return nil, nil
	}
	hasDefault := slices.ContainsFunc(routes, func(r Route) bool { return r.To.Bits() == 0 })
	if !hasDefault && gateway.IsValid() {
		routes = append(slices.Clone(routes), Route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway})
	}
	var out []byte
	for _, r := range routes {
		if !r.To.IsValid() || !r.To.Addr().Is4() || !r.Via.Is4() {
			return nil, fmt.Errorf("route %v via %v: want an IPv4 prefix and address", r.To, r.Via)
		}
		to := r.To.Masked().Addr().As4()
		out = append(out, byte(r.To.Bits()))
		out = append(out, to[:(r.To.Bits()+7)/8]...)
		out = append(out, r.Via.AsSlice()...)
	}
	return out, nil
}

// encodeSearch returns option 119: names as in DNS, where an end that came before is
// replaced by a pointer to it (RFC 3397, RFC 1035 section 4.1.4).
func encodeSearch(domains []string) ([]byte, error) {
	var out []byte
	seen := map[string]int{}
	for _, domain := range domains {
		name := strings.ToLower(strings.TrimSuffix(domain, "."))
		for name != "" {
			if at, ok := seen[name]; ok {
				out = append(out, 0xc0|byte(at>>8), byte(at))
				break
			}
			if len(out) < 1<<14 {
				seen[name] = len(out)
			}
			label, rest, _ := strings.Cut(name, ".")
			if label == "" || len(label) > 63 || len(name) > 253 {
				return nil, fmt.Errorf("search %q: no domain name", domain)
			}
			out = append(append(out, byte(len(label))), label...)
			if name = rest; name == "" {
				out = append(out, 0)
			}
		}
	}
	return out, nil
}

func encodeSubOptions(list []Option) ([]byte, error) {
	var out []byte
	for _, o := range list {
		if len(o.Value) > 255 {
			return nil, fmt.Errorf("sub-option %d: %d bytes, want at most 255", o.Code, len(o.Value))
		}
		out = append(append(out, o.Code, byte(len(o.Value))), o.Value...)
	}
	return out, nil
}

func encodeVendors(list []VendorOptions) ([]byte, error) {
	var out []byte
	for _, v := range list {
		data, err := encodeSubOptions(v.Options)
		if err = errors.Join(err, v.Check()); err != nil {
			return nil, fmt.Errorf("vendor %d: %w", v.Enterprise, err)
		}
		out = binary.BigEndian.AppendUint32(out, v.Enterprise)
		out = append(append(out, byte(len(data))), data...)
	}
	return out, nil
}
