//! A simulation as a [`Scene`].

use mujoco_rs::prelude::MjtGeomBase;

use super::{Camera, Sim, View};
use crate::{Form, Scene, Solid};

/// Half the side of the largest plane that is drawn (m): the engine's infinite planes have no sides.
const PLANE: f64 = 1.0;
/// Groups that the engine shows.
const SHOWN: std::ops::Range<i32> = 0..3;

impl Sim {
    /// The visible geoms and sites in their places, as the last step computed them, seen from a camera. A named camera of the model is
    /// replaced by the engine's own view of the whole model. Meshes are drawn as their bounding boxes; lights, textures, tendons and skins
    /// are left out.
    #[must_use]
    pub fn scene(&self, camera: &Camera) -> Scene {
        let (model, data) = (self.model().inner(), self.data());
        let mut solids = Vec::new();
        let colour = |material: i32, own: [f32; 4]| match usize::try_from(material) {
            // As the engine does: the material's colour, unless the geom's own was set.
            Ok(material) if own == [0.5, 0.5, 0.5, 1.0] => model.mat_rgba()[material],
            _ => own,
        };
        for i in 0..model.geom_type().len() {
            let colour = colour(model.geom_matid()[i], model.geom_rgba()[i]);
            if !SHOWN.contains(&model.geom_group()[i]) || colour[3] == 0.0 {
                continue;
            }
            let (mut at, axes) = (data.geom_xpos()[i], data.geom_xmat()[i]);
            let [centre, half] = split(model.geom_aabb()[i]);
            let (form, size) = form(model.geom_type()[i], model.geom_size()[i], half);
            if form == Form::Box {
                // A mesh's box need not be centred on its origin.
                for (row, at) in at.iter_mut().enumerate() {
                    *at += (0..3).map(|column| axes[3 * row + column] * centre[column]).sum::<f64>();
                }
            }
            solids.push(solid(form, size, colour, at, axes));
        }
        for i in 0..model.site_type().len() {
            let colour = colour(model.site_matid()[i], model.site_rgba()[i]);
            if !SHOWN.contains(&model.site_group()[i]) || colour[3] == 0.0 {
                continue;
            }
            let size = model.site_size()[i];
            let (form, size) = form(model.site_type()[i], size, size);
            solids.push(solid(form, size, colour, data.site_xpos()[i], data.site_xmat()[i]));
        }
        let view = match camera {
            Camera::Free(view) => view.clone(),
            Camera::Named(_) => View::of(self.model()),
        };
        let mut lookat = view.lookat;
        if let Some(body) = view.follow.as_deref().and_then(|name| self.model().body(name).ok()) {
            let [x, y, _] = data.subtree_com()[body];
            lookat[0] += x;
            lookat[1] += y;
        }
        let directions = [view.azimuth as f32, view.elevation as f32];
        Scene::new(solids, lookat.map(|x| x as f32), view.distance as f32, directions)
    }
}

fn split([a, b, c, d, e, f]: [f64; 6]) -> [[f64; 3]; 2] {
    [[a, b, c], [d, e, f]]
}

/// The shape of a geom and half its extents.
fn form(kind: MjtGeomBase, [x, y, z]: [f64; 3], half: [f64; 3]) -> (Form, [f64; 3]) {
    let side = |half: f64| if half > 0.0 { half.min(PLANE) } else { PLANE };
    match kind {
        MjtGeomBase::mjGEOM_PLANE => (Form::Plane, [side(x), side(y), 0.0]),
        MjtGeomBase::mjGEOM_SPHERE => (Form::Ellipsoid, [x; 3]),
        MjtGeomBase::mjGEOM_ELLIPSOID => (Form::Ellipsoid, [x, y, z]),
        MjtGeomBase::mjGEOM_CAPSULE => (Form::Capsule, [x, x, y]),
        MjtGeomBase::mjGEOM_CYLINDER => (Form::Cylinder, [x, x, y]),
        MjtGeomBase::mjGEOM_BOX => (Form::Box, [x, y, z]),
        MjtGeomBase::mjGEOM_MESH | MjtGeomBase::mjGEOM_HFIELD | MjtGeomBase::mjGEOM_SDF => (Form::Box, half),
    }
}

fn solid(form: Form, size: [f64; 3], colour: [f32; 4], at: [f64; 3], axes: [f64; 9]) -> Solid {
    Solid::new(form, size.map(|x| x as f32), colour).at(at.map(|x| x as f32), axes.map(|x| x as f32))
}
