// SPDX-License-Identifier: Apache-2.0

package nft

// What is only parsed is never listed, except what stands for a type in typeof.

func (x *symbol) print(p *printer)      { p.WriteString(x.text) }
func (x *listLit) print(*printer)       {}
func (x *rangeLit) print(*printer)      {}
func (x *prefixLit) print(*printer)     {}
func (x *setLit) print(*printer)        {}
func (x *starLit) print(p *printer)     { p.WriteString("*") }
func (x *setName) print(p *printer)     { p.WriteString("@" + x.name) }
func (x *mapLit) print(*printer)        {}
func (x *verdictLit) print(*printer)    {}
func (x *matchLit) print(*printer)      {}
func (x *vmapLit) print(*printer)       {}
func (x *objectLit) print(*printer)     {}
func (x *rejectLit) print(*printer)     {}
func (x *natLit) print(*printer)        {}
func (x *mangleLit) print(*printer)     {}
func (x *setStmtLit) print(*printer)    {}
func (*symbol) toJSON(*printer) any     { return nil }
func (*listLit) toJSON(*printer) any    { return nil }
func (*rangeLit) toJSON(*printer) any   { return nil }
func (*prefixLit) toJSON(*printer) any  { return nil }
func (*setLit) toJSON(*printer) any     { return nil }
func (*starLit) toJSON(*printer) any    { return nil }
func (*setName) toJSON(*printer) any    { return nil }
func (*mapLit) toJSON(*printer) any     { return nil }
func (*verdictLit) toJSON(*printer) any { return nil }
func (*matchLit) toJSON(*printer) any   { return nil }
func (*vmapLit) toJSON(*printer) any    { return nil }
func (*objectLit) toJSON(*printer) any  { return nil }
func (*rejectLit) toJSON(*printer) any  { return nil }
func (*natLit) toJSON(*printer) any     { return nil }
func (*mangleLit) toJSON(*printer) any  { return nil }
func (*setStmtLit) toJSON(*printer) any { return nil }
