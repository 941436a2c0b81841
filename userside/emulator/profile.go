package emulator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/usher-agent/usher/userside"
)

// Profile is the generation of the ERP that is imitated (API page, sections 2
// and 9).
type Profile uint8

const (
	// ProfileLegacy is a late 3.16: envelope Result/ErrorText, errors with HTTP
	// status 200, numbers and empty arrays the way old PHP prints them. It is
	// lenient: usercode and customer_id, subcat and action are all understood.
	ProfileLegacy Profile = iota + 1
	// ProfileModern is 3.18 to 3.20: envelope result/error, errors with a status
	// other than 200, writes by GET or POST. The default.
	ProfileModern
	// ProfileV321 is ProfileModern with writes by GET refused (405).
	ProfileV321
	// Profile316 is a server from before 3.16dev2 to the letter: ProfileLegacy
	// that knows no name of today where the old one is documented: subcat in
	// cat=customer and not action, usercode and not customer_id at the actions that
	// said so, operator_id and not employee_id.
	Profile316
)

// String returns legacy, modern, v321 or v316, the words that ParseProfile reads.
func (p Profile) String() string {
	switch p {
	case ProfileLegacy:
		return "legacy"
	case ProfileModern:
		return "modern"
	case ProfileV321:
		return "v321"
	case Profile316:
		return "v316"
	default:
		return fmt.Sprintf("profile(%d)", uint8(p))
	}
}

// MarshalText implements encoding.TextMarshaler.
func (p Profile) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Profiles returns all profiles, the oldest server first.
func Profiles() []Profile { return []Profile{Profile316, ProfileLegacy, ProfileModern, ProfileV321} }

// ParseProfile reads v316, legacy, modern or v321.
func ParseProfile(s string) (Profile, error) {
	for _, p := range Profiles() {
		if p.String() == s {
			return p, nil
		}
	}
	return 0, fmt.Errorf("profile %q: want v316, legacy, modern or v321", s)
}

func (p Profile) valid() bool { return p >= ProfileLegacy && p <= Profile316 }

// Version returns the level of the server: what it tells in get_system_info, and
// what decides which actions and parameters it knows. It is the zero Version
// for a Profile that does not exist.
func (p Profile) Version() userside.Version {
	switch p {
	case ProfileLegacy:
		return level("3.16.30")
	case ProfileModern:
		return level("3.19.5")
	case ProfileV321:
		return level("3.21.2")
	case Profile316:
		return level("3.16dev1")
	default:
		return userside.Version{}
	}
}

// old reports whether the profile has the old envelope and way of printing.
func (p Profile) old() bool { return p == ProfileLegacy || p == Profile316 }

// level reads a version that is written in this package; the tests parse all of
// them. Nothing gives the zero Version, which as a bound means none.
func level(s string) userside.Version {
	var v userside.Version
	if err := v.UnmarshalText([]byte(s)); err != nil {
		panic(err)
	}
	return v
}

// Shape is the form of the answer to get_ip_port_device_commutation, whose real
// form is published nowhere. The letters are those of the API page, section 3.4:
//
//	A  list of flat rows (the default)
//	B  object keyed by the decimal address, flat rows
//	C  object keyed by customer id: a row, or a list when there are several
//	   (with Quirks.CompositeRows: {ip_mac, commutation})
//	D  object keyed by device id, then by port: a row, or a list
//	E  list of rows with names of old tables: usercode, userip, devcode, devip
//	F  nothing: an empty list (with Quirks.OmitOptional no data at all)
type Shape byte

// The shapes.
const (
	ShapeA Shape = 'A' + iota
	ShapeB
	ShapeC
	ShapeD
	ShapeE
	ShapeF
)

// String returns the letter.
func (s Shape) String() string { return string(rune(s)) }

// MarshalText implements encoding.TextMarshaler.
func (s Shape) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ParseShape reads one letter A to F, in any case.
func ParseShape(s string) (Shape, error) {
	if len(s) == 1 {
		if sh := Shape(strings.ToUpper(s)[0]); sh.valid() {
			return sh, nil
		}
	}
	return 0, fmt.Errorf("shape %q: want a letter from A to F", s)
}

func (s Shape) valid() bool { return s >= ShapeA && s <= ShapeF }

// Key is one entry of the ERP's list of API keys (API page, section 1.1). The
// same key may stand in several entries; a call passes when one of them fits.
type Key struct {
	Key      string
	IP       string   // source address that may use it; "*" or empty: any
	Sections []string // values of cat that it may use; empty: all
}

// String hides the key from every format.
func (k Key) String() string { return "[redacted] from " + k.source() }

// GoString hides the key from %#v.
func (k Key) GoString() string { return "emulator.Key{" + k.String() + "}" }

func (k Key) source() string {
	if k.IP == "" {
		return "*"
	}
	return k.IP
}

func (k Key) validate() error {
	if k.Key == "" {
		return fmt.Errorf("empty key")
	}
	if k.source() != "*" {
		if _, err := netip.ParseAddr(k.IP); err != nil {
			return fmt.Errorf("ip %q: want * or an address", k.IP)
		}
	}
	return nil
}

// from reports whether the entry may be used from addr.
func (k Key) from(addr netip.Addr) bool {
	if k.source() == "*" {
		return true
	}
	want, err := netip.ParseAddr(k.IP)
	return err == nil && want.Unmap() == addr.Unmap()
}

// section reports whether the entry opens cat; abon is the old name of customer.
func (k Key) section(cat string) bool {
	return len(k.Sections) == 0 || slices.Contains(k.Sections, cat) ||
		cat == "customer" && slices.Contains(k.Sections, "abon")
}
