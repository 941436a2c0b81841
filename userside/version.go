package userside

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Stage is where a Version stands on its way to the release. The zero Stage
// belongs to the zero Version only.
type Stage uint8

// The stages in their order.
const (
	StageDev Stage = iota + 1
	StageBeta
	StageRC
	StageRelease
)

func (s Stage) String() string {
	switch s {
	case StageDev:
		return "dev"
	case StageBeta:
		return "beta"
	case StageRC:
		return "rc"
	case StageRelease:
		return "release"
	default:
		return "unknown"
	}
}

// Version is a level of the ERP as the vendor writes it: 3.12, 3.12beta35,
// 3.16dev3, 3.12rc2, 3.17.36 (API page section 7). The zero Version means "not
// known" or, as a bound, "none". Versions can be compared with ==.
type Version struct {
	Major, Minor uint16
	Patch        uint16 // 36 of 3.17.36; 0: none told
	Stage        Stage
	Number       uint16 // 35 of 3.12beta35; 0 for a release
}

// maxVersion bounds the text of a version.
const maxVersion = 32

// ParseVersion reads a level of the ERP. A 3.17.0 is a 3.17. A stage needs no
// number: 3.17beta is before 3.17beta1.
func ParseVersion(s string) (Version, error) {
	if len(s) > maxVersion {
		return Version{}, fmt.Errorf("version is longer than %d bytes", maxVersion)
	}
	v, err := parseVersion(s)
	if err != nil {
		return Version{}, fmt.Errorf("version %q: %w", s, err)
	}
	return v, nil
}

var (
	errVersionForm  = errors.New("want a form like 3.17, 3.17.36, 3.16dev3, 3.12beta35 or 3.12rc2")
	errVersionRange = errors.New("a number is larger than 65535")
)

func parseVersion(s string) (Version, error) {
	v := Version{Stage: StageRelease}
	i := strings.IndexFunc(s, func(c rune) bool { return c != '.' && (c < '0' || c > '9') })
	numbers, stage := s, ""
	if i >= 0 {
		numbers, stage = s[:i], s[i:]
	}
	parts := strings.Split(numbers, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return Version{}, errVersionForm
	}
	for j, to := range []*uint16{&v.Major, &v.Minor, &v.Patch}[:len(parts)] {
		var err error
		if *to, err = versionNumber(parts[j]); err != nil {
			return Version{}, err
		}
	}
	if stage == "" {
		return v, nil
	}
	for _, st := range []Stage{StageDev, StageBeta, StageRC} {
		rest, ok := strings.CutPrefix(stage, st.String())
		if !ok {
			continue
		}
		v.Stage = st
		if rest == "" {
			return v, nil
		}
		var err error
		v.Number, err = versionNumber(rest)
		return v, err
	}
	return Version{}, errVersionForm
}

func versionNumber(s string) (uint16, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errVersionForm
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, errVersionRange
	}
	return uint16(n), nil
}

// Compare returns -1, 0 or 1: dev before beta before rc before the release before
// its patches. The zero Version is before all.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor), cmp.Compare(v.Patch, w.Patch),
		cmp.Compare(v.Stage, w.Stage), cmp.Compare(v.Number, w.Number))
}

// Before reports whether v is older than w.
func (v Version) Before(w Version) bool { return v.Compare(w) < 0 }

// IsZero reports whether v is the zero Version.
func (v Version) IsZero() bool { return v == Version{} }

// Has reports whether something that is there from since on, and no more from
// until on, is there on a server of level v. The zero since and until are no
// bounds. A server that tells a release without patch (3.17) may be any patch of
// it, so what came with 3.17.36 is taken to be there: the server itself will say
// if not. The zero v is the newest server.
func (v Version) Has(since, until Version) bool {
	if v.IsZero() {
		return until.IsZero()
	}
	if !until.IsZero() && !v.Before(until) {
		return false
	}
	if v.Patch == 0 && v.Stage == StageRelease && v.Major == since.Major && v.Minor == since.Minor {
		return true
	}
	return !v.Before(since)
}

// String returns the vendor's spelling; "" for the zero Version.
func (v Version) String() string {
	if v.IsZero() {
		return ""
	}
	s := fmt.Sprintf("%d.%d", v.Major, v.Minor)
	if v.Patch != 0 {
		s += fmt.Sprintf(".%d", v.Patch)
	}
	if v.Stage != StageRelease {
		s += v.Stage.String()
		if v.Number != 0 {
			s += strconv.Itoa(int(v.Number))
		}
	}
	return s
}

// MarshalText returns String.
func (v Version) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what ParseVersion reads, and nothing as the zero Version.
func (v *Version) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*v = Version{}
		return nil
	}
	got, err := ParseVersion(string(text))
	if err != nil {
		return err
	}
	*v = got
	return nil
}

// since is ParseVersion for the literals of the table.
func since(s string) Version {
	v, err := ParseVersion(s)
	if err != nil {
		panic(err) // a test reads the whole table
	}
	return v
}
