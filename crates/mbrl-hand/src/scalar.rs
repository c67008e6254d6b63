//! Number types, so that a formula is written once: `f64` for one state, lanes for the CPU engine, tensors for batches, duals for
//! gradients. Long parts of a formula are [`Kernel`]s, which lanes evaluate in one pass.

use std::ops::{Add, Mul, Neg, Sub};

use burn::tensor::Tensor;
use mbrl_env::lanes::{self, Lanes, TILE};
use multiversion::multiversion;

/// The numbers in which kinematics, features and rewards are written.
///
/// Implemented for `f64` and `f32`, for [`Wide`] (32 rows of the CPU engine), for [`Tensor<2>`] of shape `[N, 1]`, and for [`Dual`].
pub trait Scalar:
    Clone + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self> + Sized
{
    /// A constant with the shape of `self`.
    fn like(&self, value: f64) -> Self;
    /// Times a constant.
    fn scale(&self, by: f64) -> Self;
    /// Plus a constant.
    fn shift(&self, by: f64) -> Self;
    /// Sine and cosine.
    fn sin_cos(&self) -> (Self, Self);
    /// The square root of at least 1e-12, so that its gradient is finite at 0.
    fn root(&self) -> Self;
    /// The reciprocal.
    fn recip(&self) -> Self;
    /// Angle of the point (`x`, `self`).
    fn atan2(&self, x: &Self) -> Self;
    /// Clipped to limits.
    fn clamp(&self, low: f64, high: f64) -> Self;
    /// 1 below a limit, else 0.
    fn below(&self, limit: f64) -> Self;

    /// 1 above a limit, else 0.
    fn above(&self, limit: f64) -> Self {
        (-self.clone()).below(-limit)
    }

    /// Magnitude.
    fn magnitude(&self) -> Self {
        self.clamp(0.0, f64::MAX) - self.clamp(f64::MIN, 0.0)
    }

    /// Its square.
    fn square(&self) -> Self {
        self.times(self)
    }

    /// The sum: `+` without copies, which cost [`Wide`] more than the addition.
    fn plus(&self, other: &Self) -> Self {
        self.clone() + other.clone()
    }

    /// The difference, as [`plus`](Self::plus).
    fn minus(&self, other: &Self) -> Self {
        self.clone() - other.clone()
    }

    /// The product, as [`plus`](Self::plus).
    fn times(&self, other: &Self) -> Self {
        self.clone() * other.clone()
    }

    /// Rotates the directions `a` and `b` in their plane: they become `a cos + b sin` and `b cos − a sin`.
    fn turn(a: &mut Vector<Self>, b: &mut Vector<Self>, sin: &Self, cos: &Self) {
        for (a, b) in a.iter_mut().zip(b) {
            (*a, *b) = (a.times(cos).plus(&b.times(sin)), b.times(cos).minus(&a.times(sin)));
        }
    }

    /// Moves a point by a distance along a direction: `point + along · by`.
    fn advance(point: &mut Vector<Self>, along: &Vector<Self>, by: f64) {
        for (point, along) in point.iter_mut().zip(along) {
            *point = point.plus(&along.scale(by));
        }
    }

    /// Inner product.
    fn inner(a: &Vector<Self>, b: &Vector<Self>) -> Self {
        a[0].times(&b[0]).plus(&a[1].times(&b[1])).plus(&a[2].times(&b[2]))
    }

    /// The vectors that a kernel computes from others.
    fn run<K: Kernel<I, O>, const I: usize, const O: usize>(
        kernel: &K,
        inputs: [&Vector<Self>; I],
    ) -> [Vector<Self>; O] {
        kernel.of(inputs.map(Clone::clone))
    }
}

/// A formula from vectors to vectors, without long loops or branches. [`Wide`] evaluates it row by row, in `f32`: the compiler vectorizes
/// the loop over rows and keeps intermediate values in registers.
pub trait Kernel<const I: usize, const O: usize> {
    /// The outputs.
    fn of<S: Scalar>(&self, inputs: [Vector<S>; I]) -> [Vector<S>; O];
}

/// For one row: `f64` where precision matters, `f32` as the engine computes.
macro_rules! of_one_row {
    ($number:ty) => {
        impl Scalar for $number {
            #[inline(always)]
            fn like(&self, value: f64) -> Self {
                value as $number
            }
            #[inline(always)]
            fn scale(&self, by: f64) -> Self {
                self * by as $number
            }
            #[inline(always)]
            fn shift(&self, by: f64) -> Self {
                self + by as $number
            }
            fn sin_cos(&self) -> (Self, Self) {
                <$number>::sin_cos(*self)
            }
            #[inline(always)]
            fn root(&self) -> Self {
                self.max(1e-12).sqrt()
            }
            #[inline(always)]
            fn recip(&self) -> Self {
                1.0 / self
            }
            fn atan2(&self, x: &Self) -> Self {
                <$number>::atan2(*self, *x)
            }
            #[inline(always)]
            fn clamp(&self, low: f64, high: f64) -> Self {
                <$number>::clamp(*self, low as $number, high as $number)
            }
            #[inline(always)]
            fn below(&self, limit: f64) -> Self {
                if *self < limit as $number { 1.0 } else { 0.0 }
            }
        }
    };
}

of_one_row!(f64);
of_one_row!(f32);

/// A column of a tile: 32 rows side by side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wide(pub Lanes);

impl Wide {
    #[inline(always)]
    fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        let mut out = [0.0; TILE];
        for (out, x) in out.iter_mut().zip(&self.0) {
            *out = f(*x);
        }
        Self(out)
    }

    #[inline(always)]
    fn with(&self, other: &Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = [0.0; TILE];
        for ((out, x), y) in out.iter_mut().zip(&self.0).zip(&other.0) {
            *out = f(*x, *y);
        }
        Self(out)
    }
}

impl Add for Wide {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(&other, |x, y| x + y)
    }
}

impl Sub for Wide {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(&other, |x, y| x - y)
    }
}

impl Mul for Wide {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(&other, |x, y| x * y)
    }
}

impl Neg for Wide {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|x| -x)
    }
}

impl Scalar for Wide {
    #[inline(always)]
    fn like(&self, value: f64) -> Self {
        Self([value as f32; TILE])
    }
    #[inline(always)]
    fn scale(&self, by: f64) -> Self {
        let by = by as f32;
        self.map(|x| x * by)
    }
    #[inline(always)]
    fn shift(&self, by: f64) -> Self {
        let by = by as f32;
        self.map(|x| x + by)
    }
    fn sin_cos(&self) -> (Self, Self) {
        let (mut sin, mut cos) = ([0.0; TILE], [0.0; TILE]);
        lanes::sin_cos_of(&self.0, &mut sin, &mut cos);
        (Self(sin), Self(cos))
    }
    #[inline(always)]
    fn root(&self) -> Self {
        self.map(|x| x.max(1e-12).sqrt())
    }
    #[inline(always)]
    fn recip(&self) -> Self {
        self.map(|x| 1.0 / x)
    }
    #[inline(always)]
    fn atan2(&self, x: &Self) -> Self {
        self.with(x, f32::atan2)
    }
    #[inline(always)]
    fn clamp(&self, low: f64, high: f64) -> Self {
        let (low, high) = (low as f32, high as f32);
        self.map(|x| x.max(low).min(high))
    }
    #[inline(always)]
    fn below(&self, limit: f64) -> Self {
        let limit = limit as f32;
        self.map(|x| f32::from(u8::from(x < limit)))
    }
    #[inline(always)]
    fn plus(&self, other: &Self) -> Self {
        self.with(other, |x, y| x + y)
    }
    #[inline(always)]
    fn minus(&self, other: &Self) -> Self {
        self.with(other, |x, y| x - y)
    }
    #[inline(always)]
    fn times(&self, other: &Self) -> Self {
        self.with(other, |x, y| x * y)
    }
    fn turn(a: &mut Vector<Self>, b: &mut Vector<Self>, sin: &Self, cos: &Self) {
        turn_lanes(a, b, &sin.0, &cos.0);
    }
    fn advance(point: &mut Vector<Self>, along: &Vector<Self>, by: f64) {
        advance_lanes(point, along, by as f32);
    }
    fn inner(a: &Vector<Self>, b: &Vector<Self>) -> Self {
        let mut out = [0.0; TILE];
        inner_lanes(a, b, &mut out);
        Self(out)
    }
    fn run<K: Kernel<I, O>, const I: usize, const O: usize>(
        kernel: &K,
        inputs: [&Vector<Self>; I],
    ) -> [Vector<Self>; O] {
        let mut out = [[Self([0.0; TILE]); 3]; O];
        run_lanes(kernel, &inputs, &mut out);
        out
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2", "x86_64+avx2"))]
fn run_lanes<K: Kernel<I, O>, const I: usize, const O: usize>(
    kernel: &K,
    inputs: &[&Vector<Wide>; I],
    out: &mut [Vector<Wide>; O],
) {
    for i in 0..TILE {
        let values = kernel.of(inputs.map(|[x, y, z]| [x.0[i], y.0[i], z.0[i]]));
        for ([x, y, z], value) in out.iter_mut().zip(values) {
            (x.0[i], y.0[i], z.0[i]) = (value[0], value[1], value[2]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2", "x86_64+avx2"))]
fn turn_lanes(a: &mut Vector<Wide>, b: &mut Vector<Wide>, sin: &Lanes, cos: &Lanes) {
    for (Wide(a), Wide(b)) in a.iter_mut().zip(b) {
        for i in 0..TILE {
            (a[i], b[i]) = (a[i] * cos[i] + b[i] * sin[i], b[i] * cos[i] - a[i] * sin[i]);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2", "x86_64+avx2"))]
fn advance_lanes(point: &mut Vector<Wide>, along: &Vector<Wide>, by: f32) {
    for (Wide(point), Wide(along)) in point.iter_mut().zip(along) {
        for i in 0..TILE {
            point[i] += along[i] * by;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2", "x86_64+avx2"))]
fn inner_lanes([ax, ay, az]: &Vector<Wide>, [bx, by, bz]: &Vector<Wide>, out: &mut Lanes) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = ax.0[i] * bx.0[i] + ay.0[i] * by.0[i] + az.0[i] * bz.0[i];
    }
}

impl Scalar for Tensor<2> {
    fn like(&self, value: f64) -> Self {
        Tensor::full(self.dims(), value as f32, &self.device())
    }
    fn scale(&self, by: f64) -> Self {
        self.clone() * by as f32
    }
    fn shift(&self, by: f64) -> Self {
        self.clone() + by as f32
    }
    fn sin_cos(&self) -> (Self, Self) {
        (self.clone().sin(), self.clone().cos())
    }
    fn root(&self) -> Self {
        self.clone().clamp_min(1e-12).sqrt()
    }
    fn recip(&self) -> Self {
        self.clone().recip()
    }
    fn atan2(&self, x: &Self) -> Self {
        self.clone().atan2(x.clone())
    }
    fn clamp(&self, low: f64, high: f64) -> Self {
        match (low == f64::MIN, high == f64::MAX) {
            (true, _) => self.clone().clamp_max(high as f32),
            (_, true) => self.clone().clamp_min(low as f32),
            _ => Tensor::clamp(self.clone(), low as f32, high as f32),
        }
    }
    fn below(&self, limit: f64) -> Self {
        self.clone().lower_elem(limit as f32).float()
    }
}

/// A number and its derivatives with respect to `K` inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dual<const K: usize> {
    /// The number.
    pub value: Wide,
    /// Its derivative with respect to each input.
    pub tangent: [Wide; K],
}

impl<const K: usize> Dual<K> {
    /// The input with an index.
    #[must_use]
    pub fn input(value: &Lanes, index: usize) -> Self {
        let mut dual = Self::of(value);
        dual.tangent[index] = Wide([1.0; TILE]);
        dual
    }

    /// A number that depends on no input.
    #[must_use]
    pub fn of(value: &Lanes) -> Self {
        Self { value: Wide(*value), tangent: [Wide([0.0; TILE]); K] }
    }

    fn chain(&self, value: Wide, slope: Wide) -> Self {
        Self { value, tangent: self.tangent.map(|t| t * slope) }
    }

    fn zip(&self, other: &Self, f: impl Fn(Wide, Wide) -> Wide) -> [Wide; K] {
        std::array::from_fn(|k| f(self.tangent[k], other.tangent[k]))
    }
}

impl<const K: usize> Add for Dual<K> {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, tangent: self.zip(&other, |x, y| x + y) }
    }
}

impl<const K: usize> Sub for Dual<K> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { value: self.value - other.value, tangent: self.zip(&other, |x, y| x - y) }
    }
}

impl<const K: usize> Mul for Dual<K> {
    type Output = Self;
    #[allow(clippy::suspicious_arithmetic_impl, reason = "a product's derivative is a sum")]
    fn mul(self, other: Self) -> Self {
        let tangent = self.zip(&other, |x, y| x * other.value + y * self.value);
        Self { value: self.value * other.value, tangent }
    }
}

impl<const K: usize> Neg for Dual<K> {
    type Output = Self;
    fn neg(self) -> Self {
        Self { value: -self.value, tangent: self.tangent.map(|t| -t) }
    }
}

impl<const K: usize> Scalar for Dual<K> {
    fn like(&self, value: f64) -> Self {
        Self::of(&[value as f32; TILE])
    }
    fn scale(&self, by: f64) -> Self {
        Self { value: self.value.scale(by), tangent: self.tangent.map(|t| t.scale(by)) }
    }
    fn shift(&self, by: f64) -> Self {
        Self { value: self.value.shift(by), tangent: self.tangent }
    }
    fn sin_cos(&self) -> (Self, Self) {
        let (sin, cos) = self.value.sin_cos();
        (self.chain(sin, cos), self.chain(cos, -sin))
    }
    fn root(&self) -> Self {
        let root = self.value.root();
        let slope = root.with(&self.value, |root, x| if x > 1e-12 { 0.5 / root } else { 0.0 });
        self.chain(root, slope)
    }
    fn recip(&self) -> Self {
        let recip = self.value.recip();
        self.chain(recip, -(recip * recip))
    }
    fn atan2(&self, x: &Self) -> Self {
        let y = self;
        let square = y.value * y.value + x.value * x.value;
        let over = square.recip();
        let tangent = y.zip(x, |dy, dx| (dy * x.value - dx * y.value) * over);
        Self { value: y.value.atan2(&x.value), tangent }
    }
    fn clamp(&self, low: f64, high: f64) -> Self {
        let (floor, ceiling) = (low as f32, high as f32);
        let slope = self.value.map(|x| f32::from(u8::from(x >= floor && x <= ceiling)));
        self.chain(self.value.clamp(low, high), slope)
    }
    fn below(&self, limit: f64) -> Self {
        Self::of(&self.value.below(limit).0)
    }
}

/// Three numbers: a point or a direction.
pub type Vector<S> = [S; 3];

/// As `std::array::from_fn`, which copies large elements.
#[inline(always)]
pub(crate) fn each<S>(of: impl Fn(usize) -> S) -> Vector<S> {
    [of(0), of(1), of(2)]
}

/// `a + b`.
#[inline(always)]
pub fn add<S: Scalar>(a: &Vector<S>, b: &Vector<S>) -> Vector<S> {
    each(|i| a[i].plus(&b[i]))
}

/// `a − b`.
#[inline(always)]
pub fn subtract<S: Scalar>(a: &Vector<S>, b: &Vector<S>) -> Vector<S> {
    each(|i| a[i].minus(&b[i]))
}

/// `a · by`.
#[inline(always)]
pub fn scaled<S: Scalar>(a: &Vector<S>, by: f64) -> Vector<S> {
    each(|i| a[i].scale(by))
}

/// Inner product.
#[inline(always)]
pub fn dot<S: Scalar>(a: &Vector<S>, b: &Vector<S>) -> S {
    S::inner(a, b)
}

/// Cross product.
#[inline(always)]
pub fn cross<S: Scalar>(a: &Vector<S>, b: &Vector<S>) -> Vector<S> {
    let part = |i: usize, j: usize| a[i].times(&b[j]).minus(&a[j].times(&b[i]));
    [part(1, 2), part(2, 0), part(0, 1)]
}

/// The vector to a point from the nearest point of the segment between two others.
#[inline(always)]
pub fn way_from_line<S: Scalar>([from, to]: [&Vector<S>; 2], point: &Vector<S>) -> Vector<S> {
    let (along, away) = (subtract(to, from), subtract(point, from));
    let over = dot(&along, &along).shift(1e-9).recip();
    let part = dot(&along, &away).times(&over).clamp(0.0, 1.0);
    each(|i| away[i].minus(&along[i].times(&part)))
}

/// Length, at least 1e-6.
#[inline(always)]
pub fn length<S: Scalar>(a: &Vector<S>) -> S {
    dot(a, a).root()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A formula that uses every operation.
    fn formula<S: Scalar>(x: &S, y: &S) -> S {
        let (sin, cos) = (x.clone() * y.clone()).sin_cos();
        let bounded = x.clamp(-0.5, 0.5) + y.magnitude();
        sin * y.square().shift(1.0).root() - cos.scale(0.3)
            + bounded.atan2(&y.square().shift(0.5))
            + x.shift(3.0).recip()
            - x.below(0.2)
            + y.above(0.1)
            + directions(x, y)
    }

    struct WayFromLine;

    impl Kernel<3, 1> for WayFromLine {
        fn of<S: Scalar>(&self, [from, to, point]: [Vector<S>; 3]) -> [Vector<S>; 1] {
            [way_from_line([&from, &to], &point)]
        }
    }

    /// The operations that lanes implement themselves.
    fn directions<S: Scalar>(x: &S, y: &S) -> S {
        let (mut a, mut b) = ([x.clone(), y.shift(0.3), x.scale(0.4)], [y.clone(), x.shift(-0.7), y.scale(-1.5)]);
        let (sin, cos) = y.sin_cos();
        S::turn(&mut a, &mut b, &sin, &cos);
        S::advance(&mut a, &b, 0.3);
        // Nearest to one end, to the other, and to a point between.
        let [one, two] = [0.2, 5.0].map(|by| [x.scale(by), y.scale(-by), x.shift(by)]);
        let apart = [&a, &one, &two].map(|point| length(&S::run(&WayFromLine, [&a, &b, point])[0]));
        let [p, q, r] = apart;
        S::inner(&a, &b).scale(0.1) + p.plus(&q).minus(&r.times(x).scale(0.05))
    }

    #[test]
    fn every_kind_of_number_gives_the_same() {
        let rows: Vec<(f64, f64)> = (0..TILE).map(|i| (0.11 * i as f64 - 1.73, 1.3 - 0.083 * i as f64)).collect();
        let column = |of: fn(&(f64, f64)) -> f64| -> Lanes { std::array::from_fn(|i| of(&rows[i]) as f32) };
        let (x, y) = (column(|row| row.0), column(|row| row.1));
        let wide = formula(&Wide(x), &Wide(y));
        let device = burn::tensor::Device::flex();
        let tensor = |lanes: Lanes| Tensor::<1>::from_floats(lanes, &device).unsqueeze_dim::<2>(1);
        let batch: Vec<f32> = formula(&tensor(x), &tensor(y)).into_data().iter::<f32>().collect();
        let dual = formula(&Dual::<2>::input(&x, 0), &Dual::<2>::input(&y, 1));
        for (i, (a, b)) in rows.iter().enumerate() {
            let expected = formula(a, b);
            for (what, found) in [("lanes", wide.0[i]), ("a tensor", batch[i]), ("a dual", dual.value.0[i])] {
                assert!((f64::from(found) - expected).abs() < 1e-5, "{what}, row {i}: {found}, expected {expected}");
            }
            let step = 1e-6;
            let slopes = [
                (formula(&(a + step), b) - formula(&(a - step), b)) / (2.0 * step),
                (formula(a, &(b + step)) - formula(a, &(b - step))) / (2.0 * step),
            ];
            for (k, slope) in slopes.into_iter().enumerate() {
                let found = f64::from(dual.tangent[k].0[i]);
                assert!((found - slope).abs() < 1e-4, "row {i}, input {k}: {found}, expected {slope}");
            }
        }
    }
}
