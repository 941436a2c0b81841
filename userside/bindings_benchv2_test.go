//go:build goexperiment.jsonv2

package userside

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"io"
)

func moreDecoders() map[string]func(io.Reader) ([]BindingRow, error) {
	return map[string]func(io.Reader) ([]BindingRow, error){"json_v2_stream": decodeV2Stream, "json_v2_whole": decodeV2Whole}
}

func decodeV2Stream(r io.Reader) ([]BindingRow, error) {
	d := jsontext.NewDecoder(r)
	for range 5 { // {, "result", "OK", "data", [
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
	}
	var out []BindingRow
	for d.PeekKind() != ']' {
		var p plainRow
		if err := json.UnmarshalDecode(d, &p); err != nil {
			return nil, err
		}
		row, err := p.row()
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

func decodeV2Whole(r io.Reader) ([]BindingRow, error) {
	var a struct {
		Data []plainRow `json:"data"`
	}
	if err := json.UnmarshalRead(r, &a); err != nil {
		return nil, err
	}
	return rowsOf(a.Data)
}
