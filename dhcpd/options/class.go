package options

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/usher-agent/usher/dhcpd/option82"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Class is a kind of client, such as the set-top boxes of one vendor, and what
// its clients are told besides or instead. The first class that fits counts.
type Class struct {
	// Any name of letters, digits, _ . and -.
	Name string `cfg:"name" example:"iptv"`

	// Which clients: all that is given must hold. In patterns * is any text, ? one
	// character, and case does not matter.
	Match ClassMatch `cfg:"match"`

	// As in subnets.
	AlwaysBroadcast bool `cfg:"always_broadcast" default:"false"`
	OptionSet       `cfg:",inline" layout:"plain" example:"next_server: 192.0.2.80\nboot_file: \"stb.img\""`
}

// ClassMatch says which clients are of a class; all that is given must hold.
// Patterns are those of option82.Glob: * is any text, ? one character, case
// does not matter.
type ClassMatch struct {
	// Patterns for the vendor class (option 60) and the user class (option 77). NULs at
	// its end are left out of account, and of an option that comes several times one
	// instance must fit, or all of them joined.
	VendorClass string `cfg:"vendor_class" read:"pattern" default:"" example:"\"stb-*\""`
	UserClass   string `cfg:"user_class" read:"pattern" default:""` // the whole option, or one of the classes in it (RFC 3004)

	// First bytes of the MAC, any of these.
	MACPrefix [][]byte `cfg:"mac_prefix" read:"mac_prefix" example:"[\"00:00:5e\"]"`

	// Options that the client must send: with text (a pattern), with the very
	// bytes (hex), or just so. NULs at the end of a text are left out of account.
	Options []OptionMatch `cfg:"options" example:"- code: 93\n  hex: \"0000\"\n- code: 97\n  text: \"\""`
}

// Check reports a match of every client.
func (m *ClassMatch) Check() error {
	if m.VendorClass == "" && m.UserClass == "" && len(m.MACPrefix) == 0 && len(m.Options) == 0 {
		return errors.New("every client would be of this class; want vendor_class, user_class, mac_prefix or options")
	}
	return nil
}

// OptionMatch asks for an option of the client. With neither Text nor Value the
// option must be there.
type OptionMatch struct {
	Code  uint8  `cfg:"code" min:"1" max:"254" required:"the number of the option, 1 to 254"`
	Text  string `cfg:"text" read:"pattern"`
	Value []byte `cfg:"hex" read:"hex"` // the very bytes
}

// Classes are those of a configuration, made ready. They are counted from 1 in their
// order; 0 is no class. They never change.
type Classes []class

// class is a Class made ready.
type class struct {
	name            string
	told            OptionSet
	vendor, user    option82.Glob
	macs            [][]byte
	options         []optionMatch
	alwaysBroadcast bool
}

type optionMatch struct {
	code  uint8
	text  option82.Glob
	value []byte
}

// CompileClasses checks classes and makes them ready. It reports every mistake.
func CompileClasses(list []Class) (Classes, error) {
	var all Classes
	var errs []error
	for _, c := range list {
		made, err := compileClass(c)
		if err != nil {
			errs = append(errs, fmt.Errorf("class %s: %w", c.Name, err))
		}
		all = append(all, made)
	}
	return all, errors.Join(errs...)
}

func compileClass(c Class) (class, error) {
	out := class{name: c.Name, told: c.OptionSet, macs: c.Match.MACPrefix, alwaysBroadcast: c.AlwaysBroadcast}
	var errs []error
	glob := func(s string) (g option82.Glob) {
		if s == "" {
			return g
		}
		g, err := option82.CompileGlob(s)
		errs = append(errs, err)
		return g
	}
	m := c.Match
	errs = append(errs, m.Check())
	for _, p := range m.MACPrefix {
		if len(p) == 0 || len(p) > 6 {
			errs = append(errs, fmt.Errorf("MAC prefix %x: want 1 to 6 bytes", p))
		}
	}
	out.vendor, out.user = glob(m.VendorClass), glob(m.UserClass)
	for _, o := range m.Options {
		if o.Code == wire.OptPad || o.Code == wire.OptEnd {
			errs = append(errs, fmt.Errorf("match of option %d: no option", o.Code))
		}
		out.options = append(out.options, optionMatch{o.Code, glob(o.Text), o.Value})
	}
	return out, errors.Join(errs...)
}

func (c *class) matches(p *wire.Packet, mac [6]byte) bool {
	if !c.vendor.IsZero() && !p.Fits(wire.OptVendorClass, func(v []byte) bool { return matchText(c.vendor, v) }) {
		return false
	}
	if !c.user.IsZero() && !p.Fits(wire.OptUserClass, func(v []byte) bool { return matchUserClass(c.user, v) }) {
		return false
	}
	if len(c.macs) > 0 && !hasPrefix(mac, c.macs) {
		return false
	}
	for i := range c.options {
		o := &c.options[i]
		if _, ok := p.Option(o.code); !ok || !p.Fits(o.code, o.fits) {
			return false
		}
	}
	return true
}

func (o *optionMatch) fits(v []byte) bool {
	return (o.text.IsZero() || matchText(o.text, v)) && (o.value == nil || bytes.Equal(v, o.value))
}

// matchText leaves out of the comparison the NUL that ends a string in C: many clients send it along.
func matchText(g option82.Glob, v []byte) bool { return g.Match(bytes.TrimRight(v, "\x00")) }

func hasPrefix(mac [6]byte, prefixes [][]byte) bool {
	for _, p := range prefixes {
		if bytes.HasPrefix(mac[:], p) {
			return true
		}
	}
	return false
}

// matchUserClass tries the whole option, as iPXE and Windows send plain text, and
// each of its counted parts, as RFC 3004 has it.
func matchUserClass(g option82.Glob, v []byte) bool {
	if len(v) == 0 {
		return false
	}
	if matchText(g, v) {
		return true
	}
	for len(v) > 0 && int(v[0]) < len(v) {
		n := 1 + int(v[0])
		if matchText(g, v[1:n]) {
			return true
		}
		v = v[n:]
	}
	return false
}

// Of returns the first class that a client is of.
func (l Classes) Of(p *wire.Packet, mac [6]byte) int {
	for i := range l {
		if l[i].matches(p, mac) {
			return i + 1
		}
	}
	return 0
}

// AlwaysBroadcast reports whether that is set for a class.
func (l Classes) AlwaysBroadcast(class int) bool { return class > 0 && l[class-1].alwaysBroadcast }
