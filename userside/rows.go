package userside

import (
	"context"
	"net/http"
)

// List are the rows of one answer.
type List[T any] struct {
	Rows    []T
	Defects Defects
}

// readList calls an action that answers rows: a list, an object of them, or one
// row alone. read says whether it knew the row; an answer without any such row
// is ErrUnknownShape.
func readList[T any](ctx context.Context, c *Client, act action, args arguments, read func(recordReader) (T, bool)) (*List[T], error) {
	out := &List[T]{}
	row := func(v value, at *place) {
		if v.kind() != kindObject {
			if !v.empty() {
				out.Defects.add(at.String(), v.kind().String()+" where a row is wanted")
			}
			return
		}
		t, ok := read(recordReader{v: v, at: at, defects: &out.Defects, loc: c.opts.Location})
		if !ok {
			out.Defects.add(at.String(), "row with nothing that is known")
			return
		}
		out.Rows = append(out.Rows, t)
	}
	to := sink{reset: func() { *out = List[T]{} }}
	if act.row().Answer == AnswerBare {
		to.member = func(key []byte, index int, v value) { row(v, &place{key: key, index: index}) }
	} else {
		to.whole = func(v value) {
			if v.kind() == kindObject && hasScalar(v) {
				row(v, nil)
				return
			}
			i := 0
			for m := range v.all {
				at := &place{index: i}
				if v.kind() == kindObject {
					at.key = m.key()
				}
				row(m, at)
				i++
			}
		}
	}
	a, err := c.call(ctx, act, args.values(), to)
	if err != nil {
		return nil, err
	}
	if len(out.Rows) == 0 && out.Defects.Count > 0 {
		return nil, c.unknownShape(act, a, "no row can be recognised")
	}
	return out, nil
}

// hasScalar tells one row from an object of rows.
func hasScalar(v value) bool {
	for m := range v.all {
		if !m.composite() && !m.empty() && !isDecimal(m.key()) {
			return true
		}
	}
	return false
}

// own returns the scalar of an answer: under data, or under the first key that is
// not the envelope's (API page section 2.1).
func (a *answer) own() String {
	if a.list != "" {
		return String(a.list)
	}
	for _, e := range a.scalars {
		if e.Value != "" {
			return e.Value
		}
	}
	return ""
}

// scalar calls an action that answers one number or text.
func (c *Client) scalar(ctx context.Context, act action, args arguments) (String, error) {
	var inside String
	members := 0
	to := sink{
		reset: func() { inside, members = "", 0 },
		member: func(_ []byte, _ int, v value) {
			members++
			if s, err := v.string(); err == nil && members == 1 {
				inside = s
			}
		},
	}
	a, err := c.call(ctx, act, args.values(), to)
	if err != nil {
		return "", err
	}
	if members > 1 || members == 1 && inside == "" {
		return "", c.unknownShape(act, a, "more than one value where one is wanted")
	}
	if inside != "" {
		return inside, nil
	}
	return a.own(), nil
}

// badScalar is for a scalar that is not what it should be.
func (c *Client) badScalar(act action, want string) error {
	return &c.fail(act.row(), http.StatusOK, ErrUnknownShape, "the value is not "+want, nil).Error
}
