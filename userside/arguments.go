package userside

import (
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

// arguments collects the parameters of one call. What says nothing (0, "", nil,
// a zero time) is not sent; the table then tells if it was obligatory.
type arguments url.Values

func (a arguments) text(name, s string) arguments {
	if s != "" {
		a[name] = []string{s}
	}
	return a
}

func (a arguments) id(name string, n int64) arguments {
	if n != 0 {
		a[name] = []string{strconv.FormatInt(n, 10)}
	}
	return a
}

// textSet, idSet, flagSet and moneySet are for what may be set to "", 0 or false.
func (a arguments) textSet(name string, s *string) arguments {
	if s != nil {
		a[name] = []string{*s}
	}
	return a
}

func (a arguments) idSet(name string, n *int64) arguments {
	if n != nil {
		a[name] = []string{strconv.FormatInt(*n, 10)}
	}
	return a
}

func (a arguments) flag(name string, b bool) arguments {
	if b {
		a[name] = []string{"1"}
	}
	return a
}

func (a arguments) flagSet(name string, b *bool) arguments {
	if b != nil {
		a[name] = []string{"0"}
		a.flag(name, *b)
	}
	return a
}

func (a arguments) money(name string, m float64) arguments {
	a[name] = []string{strconv.FormatFloat(m, 'f', -1, 64)}
	return a
}

func (a arguments) moneySet(name string, m *float64) arguments {
	if m != nil {
		a.money(name, *m)
	}
	return a
}

func (a arguments) ip(name string, ip netip.Addr) arguments {
	if ip.IsValid() {
		a[name] = []string{ip.String()}
	}
	return a
}

func (a arguments) mac(name string, mac MAC) arguments {
	if mac != (MAC{}) {
		a[name] = []string{mac.String()}
	}
	return a
}

func (a arguments) date(name string, t time.Time, loc *time.Location) arguments {
	if !t.IsZero() {
		a[name] = []string{t.In(loc).Format(time.DateOnly)}
	}
	return a
}

func (a arguments) dateTime(name string, t time.Time, loc *time.Location) arguments {
	if !t.IsZero() {
		a[name] = []string{t.In(loc).Format(time.DateTime)}
	}
	return a
}

func (a arguments) values() url.Values { return url.Values(a) }
